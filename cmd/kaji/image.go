// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kaji/internal/app/depot"
	"kaji/internal/app/node"
	"kaji/internal/app/progress"
	"kaji/internal/container/image"
)

// imageFlags say whose images are meant and how to log in to a registry.
type imageFlags struct {
	cluster, state, root, hosts string
	dockerConfig, username      string
	passwordStdin               bool
}

func imageCommand() *cobra.Command {
	f := &imageFlags{hosts: "/etc/containerd/certs.d"}
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Work on the images of a cluster or a runtime on this machine",
		GroupID: "tool",
		Long: `Work on the images of a running cluster (--name), of a running ` + "`kaji runtime`" + `
(--state) or of a stopped one (--root).`,
	}
	fs := cmd.PersistentFlags()
	fs.StringVar(&f.cluster, "name", clusterName(), "name of the cluster; the default is $KAJI_NAME, or kaji")
	fs.StringVar(&f.state, "state", "", "state directory of a running runtime, instead of a cluster")
	fs.StringVar(&f.root, "root", "", "root directory of a stopped runtime, instead of a cluster")
	fs.StringVar(&f.hosts, "hosts-dir", f.hosts, "with --root: directory with a hosts.toml for each registry")
	cmd.AddCommand(f.list(), f.transfer("pull", "Bring an image from its registry"), f.transfer("push", "Bring an image to the registry that its name says"),
		f.tag(), f.remove(), f.load(), f.export(), f.build())
	return cmd
}

// with does work on the images that the flags mean.
func (f *imageFlags) with(work func(*depot.Client) error) error {
	if os.Getuid() != 0 {
		return errNeedsRoot
	}
	var c *depot.Client
	var err error
	switch {
	case f.root != "":
		c, err = depot.Open(f.root, f.hosts)
	case f.state != "":
		c, err = depot.Dial(f.state)
	default:
		c, err = depot.Dial(node.RuntimeState(f.cluster))
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return work(c)
}

func (f *imageFlags) list() *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(func(c *depot.Client) error {
				images, err := c.List(cmd.Context())
				if err != nil {
					return err
				}
				out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				fmt.Fprintln(out, "IMAGE\tID\tSIZE")
				for _, img := range images {
					names := img.RepoTags
					if len(names) == 0 {
						names = append(append([]string(nil), img.RepoDigests...), "<none>")[:1]
					}
					for _, name := range names {
						fmt.Fprintf(out, "%s\t%.12s\t%.1f MB\n", name, strings.TrimPrefix(img.ID, "sha256:"), float64(img.Size)/1e6)
					}
				}
				return out.Flush()
			})
		}}
}

func (f *imageFlags) transfer(verb, short string) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " IMAGE...", Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *depot.Client) error {
				for _, name := range args {
					auth, err := f.auth(cmd.InOrStdin(), name)
					if err != nil {
						return err
					}
					if verb == "push" {
						err = c.Push(cmd.Context(), name, auth)
					} else {
						show := progress.NewPull(cmd.ErrOrStderr(), name)
						_, err = c.Pull(cmd.Context(), name, auth, show.Layer)
						show.Close()
					}
					if err != nil {
						return err
					}
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
				return nil
			})
		}}
	config := ""
	if home, err := os.UserHomeDir(); err == nil {
		config = home + "/.docker/config.json"
	}
	cmd.Flags().StringVar(&f.dockerConfig, "docker-config", config, "docker's config.json with credentials for registries")
	cmd.Flags().StringVar(&f.username, "username", "", "user at the registry, with --password-stdin")
	cmd.Flags().BoolVar(&f.passwordStdin, "password-stdin", false, "read the password from the standard input")
	cmd.MarkFlagsRequiredTogether("username", "password-stdin")
	return cmd
}

func (f *imageFlags) auth(in io.Reader, name string) (image.Auth, error) {
	if !f.passwordStdin {
		return image.Login(f.dockerConfig, name), nil
	}
	password, err := io.ReadAll(io.LimitReader(in, 64<<10))
	return image.Auth{Username: f.username, Password: strings.TrimRight(string(password), "\r\n")}, err
}

func (f *imageFlags) tag() *cobra.Command {
	return &cobra.Command{Use: "tag IMAGE NAME", Short: "Give an image one more name", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *depot.Client) error { return c.Tag(cmd.Context(), args[0], args[1]) })
		}}
}

func (f *imageFlags) remove() *cobra.Command {
	return &cobra.Command{Use: "rm IMAGE...", Short: "Remove images with all their names; containers made from them run on", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *depot.Client) error {
				for _, name := range args {
					if err := c.Remove(cmd.Context(), name); err != nil {
						return err
					}
				}
				return nil
			})
		}}
}

func (f *imageFlags) load() *cobra.Command {
	return &cobra.Command{Use: "import FILE", Aliases: []string{"load"}, Short: "Store the images of an archive of docker or OCI; - is the standard input", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			return f.with(func(c *depot.Client) error { return f.store(cmd.Context(), c, in, cmd.OutOrStdout()) })
		}}
}

func (f *imageFlags) store(ctx context.Context, c *depot.Client, archive io.Reader, out io.Writer) error {
	images, err := c.Import(ctx, archive)
	for _, img := range images {
		fmt.Fprintln(out, strings.Join(append(img.RepoTags, img.ID), " "))
	}
	return err
}

func (f *imageFlags) export() *cobra.Command {
	var format, output string
	cmd := &cobra.Command{Use: "export IMAGE...", Aliases: []string{"save"}, Short: "Write images to an archive", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *depot.Client) (err error) {
				out := cmd.OutOrStdout()
				if output != "-" {
					file, err := os.Create(output)
					if err != nil {
						return err
					}
					defer file.Close()
					out = file
				}
				return c.Export(cmd.Context(), out, image.Format(format), args...)
			})
		}}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write; - is the standard output")
	cmd.Flags().StringVar(&format, "format", string(image.FormatDocker), "docker or oci")
	_ = cmd.MarkFlagRequired("output") // fails for unknown flags only
	return cmd
}

func (f *imageFlags) build() *cobra.Command {
	var b depot.Build
	cmd := &cobra.Command{Use: "build PATH", Short: "Make an image of a root file system's directory or of one static program", Args: cobra.ExactArgs(1),
		Long: `Make an image of a directory, which becomes its root file system, or of one
statically linked program, which becomes its entrypoint. There is no Dockerfile.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b.Path = args[0]
			return f.with(func(c *depot.Client) error {
				reader, writer := io.Pipe()
				go func() { writer.CloseWithError(b.Write(writer)) }()
				err := f.store(cmd.Context(), c, reader, cmd.OutOrStdout())
				reader.CloseWithError(err)
				return err
			})
		}}
	fs := cmd.Flags()
	fs.StringVarP(&b.Tag, "tag", "t", "", "name of the image")
	fs.StringArrayVar(&b.Entrypoint, "entrypoint", nil, "program and its first arguments, one a flag")
	fs.StringArrayVar(&b.Cmd, "cmd", nil, "arguments that a pod's own replace, one a flag")
	fs.StringArrayVar(&b.Env, "env", nil, "variables, NAME=value")
	fs.StringVar(&b.WorkingDir, "workdir", "", "working directory")
	fs.StringVar(&b.User, "user", "", "user, by name or number")
	_ = cmd.MarkFlagRequired("tag") // fails for unknown flags only
	return cmd
}
