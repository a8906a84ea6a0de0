# Keeps a session's shell in tmux, for ttyd:
#
#     tmux.sh serve TMUX SOCKET CONFIGURATION COMMAND...   starts the tmux server beside COMMAND, which is ttyd
#     tmux.sh attach TMUX SOCKET CONFIGURATION SHELL       what ttyd runs for each browser
#
# Starting tmux takes about as long as ttyd takes to get ready, so both are done at once.
set -u
role=$1 tmux=$2 socket=$3 configuration=$4
shift 4

if [ "$role" = serve ]; then
    # The inner process is an orphan as soon as it runs: ttyd doesn't wait for children it doesn't know.
    ("$tmux" -u -S "$socket" -f "$configuration" start-server &)
    exec "$@"
fi

# What has scrolled off is printed first, so that the emulator can scroll back to it. The screen that tmux
# draws then begins by clearing what can be seen, so everything is pushed up beforehand.
if [ -e "$socket.seen" ]; then
    "$tmux" -u -S "$socket" if-shell -F -t =terminal: '#{history_size}' \
        'capture-pane -p -e -J -S -5000 -E -1 -t =terminal:' 2>/dev/null &&
        size=$(stty size) && printf '\033[m%*s' "$((${size% *} - 1))" '' | tr ' ' '\n'
else
    : >"$socket.seen"
fi
exec "$tmux" -u -S "$socket" -f "$configuration" \
    new-session -A -s terminal env -u TMUX -u TMUX_PANE "$1" -l
