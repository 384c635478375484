# bash completion for meshdev: source <(meshdev completion bash)

_meshdev() {
    local line=${COMP_LINE:0:COMP_POINT} each directive prefix=
    local -a found
    mapfile -t found < <("${1/#\~\//$HOME/}" __complete_line "$line" 2>/dev/null)
    COMPREPLY=()
    ((${#found[@]})) || return 0
    directive=${found[-1]#:}
    unset 'found[-1]'
    # readline replaces only what follows the last "=" or ":", where those divide words
    line=${line##*[[:space:]]}
    [[ $COMP_WORDBREAKS == *=* && $line == *=* ]] && prefix=${line%"${line##*=}"}
    [[ $COMP_WORDBREAKS == *:* && ${line#"$prefix"} == *:* ]] && prefix=${line%"${line##*:}"}
    for each in "${found[@]}"; do
        each=${each%%$'\t'*}
        COMPREPLY+=("${each#"$prefix"}")
    done
    ((directive & 2)) && compopt -o nospace
    ((directive & 4)) || compopt -o default
    return 0
}

complete -F _meshdev meshdev
