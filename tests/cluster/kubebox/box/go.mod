module kubebox/box

go 1.25.0

require (
	github.com/spf13/cobra v1.8.1
	k8s.io/component-base v0.32.13
)
