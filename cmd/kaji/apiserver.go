// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kaji/internal/app/controlplane"
	"kaji/internal/app/heap"
	"kaji/internal/app/logging"
)

func apiserverCommand() *cobra.Command {
	var o *controlplane.Options
	log := &logging.Options{}
	cmd := &cobra.Command{
		Use:     "apiserver",
		Aliases: []string{"kube-apiserver"},
		Short:   "Run the Kubernetes API server alone (kube-apiserver)",
		GroupID: "component",
		Long: `Run the Kubernetes API server with its embedded store, or on etcd.

Keys and certificates that are not given are made below the data directory; the
administrator's kubeconfig is written to <data-dir>/admin.kubeconfig.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer heap.Pace()()
			if err := o.Complete(cmd.Flags()); err != nil {
				return err
			}
			logger := log.New(os.Stderr)
			plane, err := controlplane.New(cmd.Context(), o, logger)
			if err != nil {
				return err
			}
			if o.DataDir != "" {
				if err := plane.WriteAdminKubeconfig(filepath.Join(o.DataDir, "admin.kubeconfig"), "kaji", netip.Addr{}); err != nil {
					return err
				}
			}
			logger.Info("serving", "address", plane.Address())
			return plane.Run(cmd.Context())
		},
	}
	o = controlplane.AddFlags(cmd.Flags())
	log.AddFlags(cmd.Flags())
	shortHelp(cmd, "data-dir", "etcd-servers", "secure-port", "bind-address", "advertise-address", "service-cluster-ip-range", "service-node-port-range", "client-ca-file", "tls-cert-file", "tls-private-key-file", "service-account-issuer", "service-account-key-file", "service-account-signing-key-file", "authorization-mode", "enable-admission-plugins", "disable-admission-plugins", "runtime-config", "feature-gates", "audit-policy-file", "audit-log-path", "encryption-provider-config", "v")
	return cmd
}
