// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kaji/internal/app/home"
	"kaji/internal/app/local"
)

var errNeedsRoot = errors.New("this needs root: try again with sudo")

func upCommand() *cobra.Command {
	f := newClusterFlags()
	patience := 2 * time.Minute
	cmd := &cobra.Command{
		Use:     "up",
		Short:   "Start a cluster on this machine, in the background",
		GroupID: "cluster",
		Long: `Start a cluster on this machine and wait until it is ready.

The cluster's context is merged into your kubeconfig and made the current one.
Running it again changes nothing; it says what is there.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			args := given(cmd.Flags())
			if len(args) == 0 {
				if args, err = remembered(dir); err != nil {
					return err
				}
				if err := cmd.Flags().Parse(args); err != nil {
					return fmt.Errorf("the settings that the cluster was started with last time, %s: %w", dir.Settings(), err)
				}
			}
			cluster := local.Cluster{Name: f.name, Dir: dir}
			if f.network, args, err = local.Place(cluster, f.network, args); err != nil {
				return err
			}
			c, err := f.config(cmd.Flags())
			if err != nil {
				return err
			}
			if err := c.Check(!dir.Exists()); err != nil {
				return err
			}
			if !c.Outside.IsValid() {
				cluster.Ports = []int{f.api.Serving.SecurePort, int(c.KubeletPort), 10256}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			return local.Up(ctx, cluster, args, cmd.OutOrStdout())
		},
	}
	f.add(cmd, "wait")
	cmd.Flags().DurationVar(&patience, "wait", patience, "how long to wait for the cluster to be ready")
	return cmd
}

// given are the flags a user gave, as arguments again; the cluster's name and what
// concerns the verb alone are left out.
func given(fs *pflag.FlagSet) []string {
	var args []string
	fs.Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "wait", "name", "root", "config", "all":
			return
		}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+flag.Name+"="+v)
			}
			return
		}
		args = append(args, "--"+flag.Name+"="+strings.Trim(flag.Value.String(), "[]"))
	})
	return args
}

// clusterName is the cluster meant where none is named: $KAJI_NAME, or kaji.
func clusterName() string {
	if name := os.Getenv("KAJI_NAME"); name != "" {
		return name
	}
	return "kaji"
}

// remembered are the arguments a cluster was started with before, without its
// name, which older files hold.
func remembered(dir home.Dir) ([]string, error) {
	before, err := local.Remembered(dir)
	return slices.DeleteFunc(before, func(a string) bool { return strings.HasPrefix(a, "--name=") }), err
}

// named adds the flags that name a cluster, and returns it.
func named(fs *pflag.FlagSet) func() (local.Cluster, error) {
	name := fs.String("name", clusterName(), "name of the cluster; the default is $KAJI_NAME, or kaji")
	data := fs.String("data-dir", "", "directory of the cluster; "+home.DefaultRoot+"/<name> when empty")
	return func() (local.Cluster, error) {
		dir, err := home.Named(*name, *data)
		return local.Cluster{Name: *name, Dir: dir}, err
	}
}

func downCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "Stop a cluster of this machine and its containers",
		GroupID: "cluster",
		Args:    cobra.NoArgs,
	}
	cluster := named(cmd.Flags())
	purge := cmd.Flags().Bool("purge", false, "delete the cluster's data, too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if os.Getuid() != 0 {
			return errNeedsRoot
		}
		c, err := cluster()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), downTime)
		defer cancel()
		return local.Down(ctx, c, *purge, cmd.OutOrStdout())
	}
	return cmd
}

// downTime is how long the end of a cluster with all its containers may take.
const downTime = 10 * time.Minute

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show how a cluster of this machine is", GroupID: "cluster", Args: cobra.NoArgs}
	cluster := named(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := cluster()
		if err != nil {
			return err
		}
		return local.Status(cmd.Context(), c, cmd.OutOrStdout())
	}
	return cmd
}

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "logs [component]", Short: "Print a cluster's log, of all components or of one", GroupID: "cluster", Args: cobra.MaximumNArgs(1),
		ValidArgs: []string{"scheduler", "proxy", "kubelet", "runtime", "network"}}
	cluster := named(cmd.Flags())
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what is added")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := cluster()
		if err != nil {
			return err
		}
		return local.Logs(cmd.Context(), c, strings.Join(args, ""), *follow, cmd.OutOrStdout())
	}
	return cmd
}

func kubeconfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "kubeconfig", Short: "Print the administrator's kubeconfig of a cluster", GroupID: "cluster", Args: cobra.NoArgs}
	cluster := named(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := cluster()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(c.Dir.AdminKubeconfig())
		if errors.Is(err, os.ErrNotExist) {
			return local.NoCluster(c)
		}
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(data)
		return err
	}
	return cmd
}
