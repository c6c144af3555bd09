// SPDX-License-Identifier: Apache-2.0

// Package command is the embedded pod network as a plug-in of the Container
// Network Interface: the program kaji-cni, which containerd, CRI-O or another
// runtime executes for each pod. It speaks the versions 0.4.0 to 1.1.0 of the
// protocol. The front (cmd/front) and the main program run it under that name.
//
// Its leases are those of package veth, which the kernel keeps. A file lock puts
// the processes of one machine in a row; nothing else that it keeps is needed to
// be right after a crash. It makes no ways to other nodes' pods.
package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"kaji/internal/podnet"
)

// Name is the plug-in's type in configurations.
const Name = "kaji-cni"

// unavailable is the protocol's code of a plug-in that cannot serve.
const unavailable = 50

// Main answers one call, told by the environment and standard input, and ends the
// process where it fails. release is the program's version.
func Main(release string) {
	p := plugin{release}
	skel.PluginMainFuncs(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status},
		version.PluginSupports("0.4.0", "1.0.0", "1.1.0"), "CNI plugin "+Name+" "+release)
}

// plugin holds the program's version: another one writes the rules anew.
type plugin struct{ release string }

// openPod reads what a command says of a pod, and opens its network, which the
// caller closes.
func (p plugin) openPod(args *skel.CmdArgs) (c *config, s podnet.Sandbox, l *ledger, err error) {
	if c, err = parse(args.StdinData); err != nil {
		return nil, s, nil, err
	}
	if s, err = c.sandbox(args); err != nil {
		return nil, s, nil, err
	}
	l, err = open(c, p.release)
	return c, s, l, err
}

func (p plugin) add(args *skel.CmdArgs) error {
	c, s, l, err := p.openPod(args)
	if err != nil {
		return err
	}
	defer l.close()
	ctx := context.Background()
	if got, err := l.network.Check(ctx, s); err == nil {
		return fmt.Errorf("the pod is connected already, with %v", got.IPs)
	}
	got, err := l.network.Setup(ctx, s)
	if err != nil {
		return err
	}
	result, err := c.result(s, got)
	if err == nil {
		err = l.remember(got.IPs)
	}
	if err != nil {
		return errors.Join(err, l.network.Teardown(ctx, s))
	}
	return types.PrintResult(result, c.CNIVersion)
}

// del succeeds where nothing is left, as often as it is called.
func (p plugin) del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := open(c, p.release)
	if err != nil {
		return err
	}
	defer l.close()
	return l.network.Teardown(context.Background(), podnet.Sandbox{ID: args.ContainerID, Interface: args.IfName})
}

func (p plugin) check(args *skel.CmdArgs) error {
	c, s, l, err := p.openPod(args)
	if err != nil {
		return err
	}
	defer l.close()
	got, err := l.network.Check(context.Background(), s)
	if err != nil {
		return err
	}
	return c.compare(s, got)
}

// gc disconnects what the runtime does not know any more. All pods of the type
// kaji-cni on a machine are of one network.
func (p plugin) gc(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := open(c, p.release)
	if err != nil {
		return err
	}
	defer l.close()
	var live []podnet.Sandbox
	for _, a := range c.ValidAttachments {
		live = append(live, podnet.Sandbox{ID: a.ContainerID, Interface: a.IfName})
	}
	return l.network.Prune(live)
}

// status says whether pods can be connected: it does what add does first.
func (p plugin) status(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := open(c, p.release)
	if err != nil {
		return types.NewError(unavailable, "pods cannot be connected", err.Error())
	}
	defer l.close()
	return nil
}
