package main

import (
	"errors"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdStart bounds the wait for a leader; one member on a local disk needs about a second.
const etcdStart = 60 * time.Second

// slowRequest is etcd's own default for requests worth a line in the log.
const slowRequest = 300 * time.Millisecond

// etcdCommand runs a single-member etcd. It never syncs to disk: the testbed's data is worth nothing after `down`,
// and fsync is what makes a control plane slow on a small machine.
func etcdCommand() *cobra.Command {
	var dir, clientURL, peerURL string
	command := &cobra.Command{
		Use:          "etcd",
		SilenceUsage: true,
		RunE:         func(*cobra.Command, []string) error { return runEtcd(dir, clientURL, peerURL) },
	}
	command.Flags().StringVar(&dir, "data-dir", "etcd", "folder of the database")
	command.Flags().StringVar(&clientURL, "listen-client-url", "http://127.0.0.1:12379", "where the API server connects")
	command.Flags().StringVar(&peerURL, "listen-peer-url", "http://127.0.0.1:12380", "unused by one member, but required")
	return command
}

func runEtcd(dir, clientURL, peerURL string) error {
	client, err := url.Parse(clientURL)
	if err != nil {
		return err
	}
	peer, err := url.Parse(peerURL)
	if err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Dir = dir
	config.ListenClientUrls = []url.URL{*client}
	config.AdvertiseClientUrls = []url.URL{*client}
	config.ListenPeerUrls = []url.URL{*peer}
	config.AdvertisePeerUrls = []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	// Zero here means "warn about every request", and the log would be the busiest file of the testbed.
	config.WarningUnaryRequestDuration = slowRequest

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return err
	case <-stop:
		return nil
	case <-time.After(etcdStart):
		return errors.New("etcd elected no leader within a minute")
	}
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}
