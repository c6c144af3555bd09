// SPDX-License-Identifier: Apache-2.0

// Package flags holds the kubelet's command-line flags: every name that
// upstream's binary takes. Most are fields of the configuration file too; a flag
// that is given overrides the file. Package app reads the files; nothing here
// touches any.
package flags

import (
	"io"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"

	"kaji/internal/kubelet/config"
)

// Options are the values of the flags that no configuration file has, and the
// configuration as the flags leave it.
type Options struct {
	ConfigFile, ConfigDir           string
	Kubeconfig, BootstrapKubeconfig string
	HostnameOverride                string
	NodeIP                          string
	CertDir, RootDir                string
	CloudProvider                   string
	NodeLabels                      map[string]string
	ImageCredentialProviderConfig   string
	ImageCredentialProviderBinDir   string
	RuntimeCgroups                  string
	// LockFile is held while the agent runs; with ExitOnLockContention it ends when
	// another wants it.
	LockFile             string
	ExitOnLockContention bool
	Verbosity            int
	// Configuration is defaulted at first; Override lays it anew over another.
	Configuration *configv1beta1.KubeletConfiguration
	// Settled says that Configuration is what files and flags leave of it together.
	Settled bool

	ignored ignored
}

// ignored are flags that have no effect here.
type ignored struct {
	mounterPath, vmodule     string
	ignoreEviction           bool
	minimumTTL, flush        time.Duration
	housekeeping             time.Duration
	split                    bool
	buffer                   string
	perContainer, containers int32
}

// New returns upstream's defaults.
func New() *Options {
	return &Options{CertDir: "/var/lib/kubelet/pki", RootDir: "/var/lib/kubelet", NodeLabels: map[string]string{}, Configuration: config.Default()}
}

// AddFlags defines the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ConfigFile, "config", "", "File with a KubeletConfiguration; flags that are given override it.")
	fs.StringVar(&o.ConfigDir, "config-dir", "", "Directory with drop-in configurations: its files named *.conf, in their order, override --config.")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "File that says how to reach the API server.")
	fs.StringVar(&o.BootstrapKubeconfig, "bootstrap-kubeconfig", "", "File with credentials to ask for a client certificate with, if the file of --kubeconfig does not exist; that is written then.")
	fs.StringVar(&o.HostnameOverride, "hostname-override", "", "The node's name, instead of the host name.")
	fs.StringVar(&o.NodeIP, "node-ip", "", "The node's address, or one a family, separated by commas; those of the default routes when empty.")
	fs.StringVar(&o.CertDir, "cert-dir", o.CertDir, "Directory of the certificates that are made or asked for.")
	fs.StringVar(&o.RootDir, "root-dir", o.RootDir, "Directory of pods and their volumes.")
	fs.StringVar(&o.CloudProvider, "cloud-provider", "", "Empty, or 'external' where a cloud controller initializes nodes.")
	labels := cliflag.ConfigurationMap(o.NodeLabels)
	fs.Var(&labels, "node-labels", "Labels of the Node, key=value, separated by commas.")
	fs.StringVar(&o.ImageCredentialProviderConfig, "image-credential-provider-config", "", "File or directory with the configuration of image credential providers.")
	fs.StringVar(&o.ImageCredentialProviderBinDir, "image-credential-provider-bin-dir", "", "Directory of the programs of image credential providers.")
	fs.StringVar(&o.RuntimeCgroups, "runtime-cgroups", "", "Control group of the container runtime, whose use is told.")
	fs.StringVar(&o.LockFile, "lock-file", "", "File that is locked while the agent runs: another one waits.")
	fs.BoolVar(&o.ExitOnLockContention, "exit-on-lock-contention", false, "End when another agent opens the lock file.")
	fs.IntVarP(&o.Verbosity, "v", "v", 0, "Number for the log level verbosity.")
	o.ignored.addFlags(fs)
	addConfiguration(fs, o.Configuration)
}

func (i *ignored) addFlags(fs *pflag.FlagSet) {
	const none = "Accepted and without effect."
	fs.DurationVar(&i.minimumTTL, "minimum-container-ttl-duration", 0, none)
	fs.Int32Var(&i.perContainer, "maximum-dead-containers-per-container", 1, none)
	fs.Int32Var(&i.containers, "maximum-dead-containers", -1, none)
	fs.StringVar(&i.mounterPath, "experimental-mounter-path", "", none)
	fs.BoolVar(&i.ignoreEviction, "experimental-allocatable-ignore-eviction", false, none)
	fs.StringVar(&i.vmodule, "vmodule", "", none)
	fs.DurationVar(&i.housekeeping, "housekeeping-interval", 10*time.Second, none)
	for _, format := range []string{"json", "text"} {
		fs.BoolVar(&i.split, "log-"+format+"-split-stream", false, none)
		fs.StringVar(&i.buffer, "log-"+format+"-info-buffer-size", "0", none)
	}
	fs.DurationVar(&i.flush, "log-flush-frequency", 5*time.Second, none)
}

// Override lays the flags of a command line over a configuration, which is then
// the one of the options. The arguments were parsed before without an error.
func (o *Options) Override(args []string, c *configv1beta1.KubeletConfiguration) error {
	over := New()
	over.Configuration = c
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	over.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.Configuration = c
	return nil
}
