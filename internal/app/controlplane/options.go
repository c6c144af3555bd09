// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"slices"

	"github.com/spf13/pflag"

	"kaji/internal/apiserver/admission/noderestriction"
	"kaji/internal/apiserver/flags"
)

// Options are what an API server can be told: upstream's flags, and where the
// embedded store and self-made keys live.
type Options struct {
	*flags.Options
	DataDir string
	// PublishAuthorities tells aggregated API servers of self-made authorities.
	PublishAuthorities bool
	// ServeMetrics serves metrics.k8s.io from the kubelets' statistics, until
	// an APIService hands it to another server.
	ServeMetrics bool

	anonymousSet bool // --anonymous-auth was given
}

// Defaults where upstream has none, or one that is not safe.
const (
	defaultIssuer       = "https://kubernetes.default.svc.cluster.local"
	defaultServiceRange = "10.96.0.0/16"
)

// defaultModes keep everybody out who was not let in.
var defaultModes = []string{"Node", "RBAC"}

// AddFlags defines the flags and returns where their values go.
func AddFlags(fs *pflag.FlagSet) *Options {
	o := &Options{Options: flags.Add(fs)}
	fs.StringVar(&o.DataDir, "data-dir", "", "directory for the embedded store, and for keys and certificates that are not given")
	for name, value := range map[string]string{"service-account-issuer": defaultIssuer, "service-cluster-ip-range": defaultServiceRange, "authorization-mode": "Node,RBAC"} {
		fs.Lookup(name).DefValue = value
	}
	return o
}

// complete fills what nobody set.
func (o *Options) complete(fs *pflag.FlagSet) {
	o.anonymousSet = fs.Changed("anonymous-auth")
	if len(o.ServiceAccount.Issuers) == 0 {
		o.ServiceAccount.Issuers = []string{defaultIssuer}
	}
	if !fs.Changed("service-cluster-ip-range") {
		o.ServiceClusterIPRange = defaultServiceRange
	}
	if !fs.Changed("authorization-mode") && o.Authorization.ConfigFile == "" {
		o.Authorization.Modes = defaultModes
		// What the mode Node grants by names only is half a fence without it.
		if !slices.Contains(o.Admission.Disable, noderestriction.Name) && !slices.Contains(o.Admission.Enable, noderestriction.Name) {
			o.Admission.Enable = append(o.Admission.Enable, noderestriction.Name)
		}
	}
}

// Complete fills what nobody set and says in plain words what cannot be right.
func (o *Options) Complete(fs *pflag.FlagSet) error {
	o.complete(fs)
	errs := o.Validate()
	if o.ServiceAccount.SigningEndpoint != "" {
		errs = append(errs, errors.New("--service-account-signing-endpoint is not supported: give --service-account-signing-key-file"))
	}
	if o.Authorization.ConfigFile != "" {
		for _, flag := range []string{"authorization-mode", "authorization-webhook-config-file", "authorization-webhook-version",
			"authorization-webhook-cache-authorized-ttl", "authorization-webhook-cache-unauthorized-ttl"} {
			if fs.Changed(flag) {
				errs = append(errs, errors.New("--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"))
				break
			}
		}
	}
	if len(o.Store.EtcdServers) == 0 && o.DataDir == "" {
		errs = append(errs, errors.New("--data-dir is needed: the embedded store lives there (or give --etcd-servers)"))
	}
	return errors.Join(errs...)
}
