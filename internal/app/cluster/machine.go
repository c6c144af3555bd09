// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/app/image"
	"kaji/internal/cni/veth"
	"kaji/internal/container"
	"kaji/internal/cri"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/cgroup"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
)

// stateRoot is where sockets and mounts live: on a tmpfs, gone after a reboot.
const stateRoot = "/run/kaji"

// machine is what the node is made of.
type machine struct {
	network *veth.Network
	runtime *container.Runtime
	addrs   []netip.Addr
}

func newMachine(c Config) (*machine, error) {
	m := &machine{network: veth.New(veth.Config{ClusterCIDRs: c.PodCIDRs, Logger: c.Logger.With("component", "network")}), addrs: outward()}
	if len(m.addrs) == 0 {
		return nil, errors.New("this machine has no address besides loopback: set up a network first")
	}
	var err error
	m.runtime, err = container.New(container.Config{
		Root: c.Dir.Runtime(), State: filepath.Join(stateRoot, c.Name, "container"), Network: m.network,
		CgroupRoot: "/kaji-" + c.Name, PinnedImages: []string{image.Name}, Logger: c.Logger.With("component", "runtime"),
	})
	if err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	return m, nil
}

// kubelet starts the runtime and the node agent over it.
func (cl *Cluster) kubelet(group *lifecycle.Group) error {
	c, m := cl.c, cl.node
	client, err := cl.plane.Client("system:node:"+c.NodeName, []string{"system:nodes"}, "kubelet")
	if err != nil {
		return err
	}
	dns, err := cl.clusterDNS()
	if err != nil {
		return err
	}
	listener, err := cl.kubeletListener()
	if err != nil {
		return err
	}
	authenticator, authorizer := cl.plane.Trust()
	k, err := kubelet.New(kubelet.Config{
		NodeName: c.NodeName, Client: client, Runtime: m.runtime, Images: imported{m.runtime}, Network: m.network,
		RootDir: c.Dir.Kubelet(), LogDir: c.Dir.PodLogs(), LegacyLogDir: "-",
		ClusterDNS: dns, ClusterDomain: c.Domain, NodeIPs: m.addrs, Port: c.KubeletPort,
		Cgroups:  &cgroup.Config{Root: "/kaji-" + c.Name, Quota: true},
		Listener: listener, Authenticator: authenticator, Authorizer: authorizer,
		Logger: c.Logger.With("component", "kubelet"),
	})
	if err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	group.Go("runtime", m.runtime.Run)
	group.Go("image", func(ctx context.Context) error { return m.importImage(ctx) })
	group.Go("kubelet", k.Run)
	return nil
}

// kubeletListener listens for the node agent, with a certificate of the node.
func (cl *Cluster) kubeletListener() (net.Listener, error) {
	leaf := pki.Leaf{CommonName: "system:node:" + cl.c.NodeName, Organizations: []string{"system:nodes"}, DNSNames: []string{cl.c.NodeName, "localhost"}}
	for _, addr := range cl.node.addrs {
		leaf.IPs = append(leaf.IPs, addr.AsSlice())
	}
	pair, err := cl.plane.Keys.CA.Ensure(cl.c.Dir.PKI(), "kubelet", leaf)
	if err != nil {
		return nil, err
	}
	certificate, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	l, err := tls.Listen("tcp", net.JoinHostPort("", strconv.Itoa(int(cl.c.KubeletPort))), &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return nil, fmt.Errorf("kubelet: cannot listen on port %d: %w", cl.c.KubeletPort, err)
	}
	return l, nil
}

// imported never asks a registry for images named localhost/…: such a name
// belongs to what was imported, as podman and buildah use it too. So a pod whose
// pull policy is Always, the default of untagged images, runs it.
type imported struct{ cri.Images }

// PullImage implements cri.Images.
func (i imported) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	if !strings.HasPrefix(req.GetImage().GetImage(), "localhost/") {
		return i.Images.PullImage(ctx, req)
	}
	status, err := i.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: req.Image})
	if err != nil {
		return nil, err
	}
	if status.Image == nil {
		return i.Images.PullImage(ctx, req)
	}
	return &runtimeapi.PullImageResponse{ImageRef: status.Image.Id}, nil
}

// importImage gives the runtime the image localhost/kaji.
func (m *machine) importImage(ctx context.Context) error {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(image.Write(writer)) }()
	_, err := m.runtime.ImportImage(ctx, reader)
	// The writer must not hang when the import ends early.
	reader.CloseWithError(err)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("importing %s: %w", image.Name, err)
	}
	return nil
}

// clusterDNS is the tenth address of each service range.
func (cl *Cluster) clusterDNS() ([]netip.Addr, error) {
	cidrs, err := cl.c.API.ServiceRanges()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, cidr := range cidrs {
		addr := cidr.Addr()
		for range 10 {
			addr = addr.Next()
		}
		out = append(out, addr)
	}
	return out, nil
}
