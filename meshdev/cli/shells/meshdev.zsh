#compdef meshdev
# zsh completion for meshdev: meshdev completion zsh > "${fpath[1]}/_meshdev"

_meshdev() {
    local -a found described space
    local each directive
    found=("${(@f)$("${(Q)words[1]/#\~\//$HOME/}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    [[ ${found[-1]} == :* ]] || return 1
    directive=${found[-1]#:}
    found[-1]=()
    for each in "${found[@]}"; do
        if [[ $each == *$'\t'* ]]; then
            described+=("${${each%%$'\t'*}//:/\\:}:${each#*$'\t'}")
        else
            described+=("${each//:/\\:}")
        fi
    done
    ((directive & 2)) && space=(-S '')
    if (($#described)); then
        _describe -t meshdev meshdev described "${space[@]}"
    elif ((!(directive & 4))); then
        _files
    fi
}

if [[ $funcstack[1] == _meshdev ]]; then
    _meshdev "$@"
else
    compdef _meshdev meshdev
fi
