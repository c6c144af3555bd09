// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"kaji/internal/app/doctor"
	"kaji/internal/app/home"
	"kaji/internal/cni/nodenet"
)

func doctorCommand() *cobra.Command {
	var port int
	var data string
	ranges := []string{"10.244.0.0/16", "10.96.0.0/16"}
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Say what on this machine would get in a cluster's way, and how to mend it",
		GroupID: "cluster",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fatal := false
			var prefixes []netip.Prefix
			for _, text := range ranges {
				p, err := netip.ParsePrefix(text)
				if err != nil {
					return fmt.Errorf("--ranges: %w", err)
				}
				prefixes = append(prefixes, p)
			}
			overlapping := func() ([]string, error) { return nodenet.Overlapping(prefixes) }
			for _, f := range doctor.Run(doctor.Config{DataDir: data, Ports: []int{port, 10250}, Beside: true, Blocked: nodenet.Blocked, Overlapping: overlapping}) {
				fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-14s %s\n", f.Severity, f.Check, f.Detail)
				if f.Remedy != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-14s → %s\n", "", "", f.Remedy)
				}
				fatal = fatal || f.Severity == doctor.Fatal
			}
			if fatal {
				return errors.New("a cluster cannot run here yet; see the problems above")
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&port, "port", 6443, "port of the API server to check")
	cmd.Flags().StringSliceVar(&ranges, "ranges", ranges, "ranges of pods and Services to check; the default is that of kaji up")
	cmd.Flags().StringVar(&data, "data-dir", home.DefaultRoot, "data directory to check")
	return cmd
}
