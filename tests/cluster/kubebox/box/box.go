// Package box runs one of many programs out of one binary. It is what kubebox's versions share; each has a module of
// its own, because each pins its own Kubernetes.
package box

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// Components maps a name to the upstream program it runs.
type Components map[string]func() *cobra.Command

// Run runs the component that the first argument names, with the other arguments as its own upstream flags. It does
// not return.
func Run(components Components) {
	if len(os.Args) < 2 || components[os.Args[1]] == nil {
		names := make([]string, 0, len(components))
		for name := range components {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "usage: kubebox COMPONENT [FLAGS]; components: %s\n", strings.Join(names, ", "))
		os.Exit(2)
	}
	name := os.Args[1]
	// The upstream programs read os.Args themselves (kubelet parses twice), so the name must be gone from it.
	os.Args = append([]string{name}, os.Args[2:]...)
	os.Exit(cli.Run(components[name]()))
}
