package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	"github.com/spf13/cobra"
)

// corednsCommand runs CoreDNS with the plugins a cluster's DNS uses. The order is CoreDNS's own (plugin.cfg): it is
// the order in which a query passes them.
func corednsCommand() *cobra.Command {
	dnsserver.Directives = []string{
		"reload", "health", "ready", "errors", "log", "cache", "kubernetes", "loop", "forward",
	}
	return &cobra.Command{
		Use:                "coredns",
		DisableFlagParsing: true, // coremain parses os.Args by itself
		Run:                func(*cobra.Command, []string) { coremain.Run() },
	}
}
