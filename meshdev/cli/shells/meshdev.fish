# fish completion for meshdev: meshdev completion fish > ~/.config/fish/completions/meshdev.fish

function __meshdev_complete
    set -l words (commandline -opc)
    set -l incomplete (commandline -ct)
    set -l found ($words[1] __complete $words[2..-1] "$incomplete" 2>/dev/null)
    test (count $found) -gt 0; or return
    set -l directive (string replace : '' -- $found[-1])
    set -e found[-1]
    if test (count $found) -gt 0
        printf '%s\n' $found
    else if test (math "floor($directive / 4) % 2") -eq 0
        __fish_complete_path "$incomplete"
    end
end

complete --command meshdev --no-files --arguments '(__meshdev_complete)'
