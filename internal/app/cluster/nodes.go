// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kaji/internal/app/daemon"
	"kaji/internal/app/home"
	"kaji/internal/app/kubeconfig"
	"kaji/internal/app/node"
	"kaji/internal/app/program"
	"kaji/internal/cni/nodenet"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
)

// nodeNetwork is the link of the nodes on this machine.
func (c *Config) nodeNetwork() nodenet.Network {
	return nodenet.Network{Cluster: c.Name, Subnet: c.NodeNetwork}
}

// openNodeNetwork prepares for more than one node: all of them, this one
// included, then have addresses on one link.
func (c *Config) openNodeNetwork() error {
	if c.Nodes < 2 {
		return nil
	}
	if hosts := 1<<(c.NodeNetwork.Addr().BitLen()-c.NodeNetwork.Bits()) - 2; !c.NodeNetwork.Addr().Is4() || c.Nodes > hosts {
		return fmt.Errorf("the node network %s has no room for %d nodes", c.NodeNetwork, c.Nodes)
	}
	n := c.nodeNetwork()
	if err := n.Open(); err != nil {
		return err
	}
	c.NodeIPs = []netip.Addr{n.Gateway()}
	if c.API.Serving.AdvertiseAddress == nil {
		c.API.Serving.AdvertiseAddress = net.IP(n.Gateway().AsSlice())
	}
	return nil
}

// moreNodes runs the nodes after the first, each a process of its own in its
// own network namespace.
func (cl *Cluster) moreNodes(group *lifecycle.Group) error {
	n := cl.c.nodeNetwork()
	for i := 2; i <= cl.c.Nodes; i++ {
		name := cl.c.NodeName + "-" + strconv.Itoa(i)
		if err := n.Add(name, i); err != nil {
			return err
		}
		dir := cl.c.Dir.Node(name)
		if err := cl.writeNodeKubeconfig(name, dir); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
		group.Go("node "+name, func(ctx context.Context) error { return cl.keepNode(ctx, n, name, n.Address(i), dir) })
	}
	return nil
}

func nodeKubeconfig(dir home.Dir) string { return filepath.Join(string(dir), "kubelet.kubeconfig") }

func (cl *Cluster) writeNodeKubeconfig(name string, dir home.Dir) error {
	pair, err := cl.plane.Keys.CA.Issue(pki.Leaf{CommonName: "system:node:" + name, Organizations: []string{"system:nodes"}, Client: true})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return err
	}
	return kubeconfig.Write(nodeKubeconfig(dir), kubeconfig.New(cl.c.Name, cl.plane.Advertised(), cl.plane.Keys.CA.Cert, pair))
}

// keepNode runs a node's process, again whenever it ends.
func (cl *Cluster) keepNode(ctx context.Context, n nodenet.Network, name string, addr netip.Addr, dir home.Dir) error {
	self, err := program.Path()
	if err != nil {
		return err
	}
	for delay := time.Second; ctx.Err() == nil; delay = min(2*delay, time.Minute) {
		started := time.Now()
		args := []string{"agent", "--name=" + node.Name(cl.c.Name, name), "--data-dir=" + string(dir), "--node-name=" + name,
			"--cgroup-driver=" + cmp.Or(cl.c.CgroupDriver, node.Cgroupfs), "--node-ip=" + addr.String(), "--kubeconfig=" + nodeKubeconfig(dir), "--healthz-bind-address=127.0.0.1:10256",
			"--ingress-http-port=" + strconv.Itoa(int(cl.c.Ingress.HTTPPort)), "--ingress-https-port=" + strconv.Itoa(int(cl.c.Ingress.HTTPSPort))}
		if p := cl.c.Plugins; p != nil {
			args = append(args, "--cni-conf-dir="+p.ConfDir, "--cni-bin-dir="+strings.Join(p.BinDirs, ","))
		}
		child := &child{cmd: exec.Command(self, args...), dir: dir, ended: make(chan error, 1)}
		err := child.run(ctx, n, name, cl.c)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > time.Minute {
			delay = time.Second
		}
		cl.c.Logger.Error("a node's process has ended, it is started again", "node", name, "err", err, "after", delay)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
	return nil
}

// child is the process of a node on this machine.
type child struct {
	cmd *exec.Cmd
	dir home.Dir
	// ended gets its end.
	ended chan error
}

// stopTime is how long a node's process may take to end.
const stopTime = 30 * time.Second

// run runs the process until it or ctx ends. One that is to hand over has, when
// run returns, given up all but what its Ingress is still answering.
func (c *child) run(ctx context.Context, n nodenet.Network, name string, config Config) error {
	c.cmd.Stdout, c.cmd.Stderr = os.Stdout, os.Stderr
	started := make(chan struct{})
	go func() {
		c.ended <- n.Do(name, func() error {
			// The thread lives as long as the process, which dies with it: a
			// node must not outlive the one that looks after it.
			c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
			if err := c.cmd.Start(); err != nil {
				return err
			}
			close(started)
			return c.cmd.Wait()
		})
	}()
	select {
	case err := <-c.ended:
		return err
	case <-started:
	}
	select {
	case err := <-c.ended:
		return err
	case <-ctx.Done():
	}
	_, err := os.Stat(config.Dir.Handover())
	handsOver := err == nil && config.Ingress.Leftover != nil && os.WriteFile(c.dir.Handover(), nil, 0o600) == nil
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // one that has ended shows below
	limit := time.NewTimer(stopTime)
	defer limit.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-c.ended:
			return err
		case <-limit.C:
			_ = c.cmd.Process.Kill()
			return <-c.ended
		case <-look.C:
			if pid, err := daemon.Running(c.dir.PID()); handsOver && err == nil && pid != c.cmd.Process.Pid {
				config.Ingress.Leftover.Go(c.linger)
				return nil
			}
		}
	}
}

// linger waits for a process that has handed over, until ctx ends.
func (c *child) linger(ctx context.Context) {
	select {
	case <-c.ended:
		return
	case <-ctx.Done():
	}
	_ = c.cmd.Process.Kill()
	<-c.ended
}
