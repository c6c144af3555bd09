// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"kaji/internal/app/home"
	"kaji/internal/cni/plugin"
	"kaji/internal/cni/veth"
	"kaji/internal/podnet"
)

// PodNetworkCNI is the setting of a cluster whose pods are connected by plug-ins.
const PodNetworkCNI = "cni"

// Plugins say where the plug-ins of the Container Network Interface are and their
// configuration.
type Plugins struct {
	ConfDir string
	BinDirs []string
}

// DefaultPlugins is where installers of plug-ins put things.
func DefaultPlugins() Plugins {
	return Plugins{ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}}
}

// pluginCache remembers how plug-ins connected a node's pods, and as which
// plug-ins: Remove needs both.
func pluginCache(dir home.Dir) string { return filepath.Join(dir.Runtime(), "cni") }

func pluginFile(dir home.Dir) string { return filepath.Join(pluginCache(dir), "plugins.json") }

// podNetwork makes what connects the node's pods.
func (n *Node) podNetwork() (podnet.Network, error) {
	c := n.c
	if c.Plugins == nil {
		return veth.New(veth.Config{ClusterCIDRs: c.PodCIDRs, Logger: c.Logger.With("component", "network")}), nil
	}
	data, err := json.Marshal(c.Plugins)
	if err == nil {
		err = os.MkdirAll(pluginCache(c.Dir), 0o700)
	}
	if err == nil {
		err = os.WriteFile(pluginFile(c.Dir), data, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("pod network: %w", err)
	}
	return c.Plugins.network(c.Dir), nil
}

func (p *Plugins) network(dir home.Dir) *plugin.Network {
	return plugin.New(plugin.Config{ConfDir: p.ConfDir, BinDirs: p.BinDirs, CacheDir: pluginCache(dir)})
}

// former is the network that the node's pods were connected with.
func former(dir home.Dir, embedded podnet.Network) (podnet.Network, error) {
	data, err := os.ReadFile(pluginFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return embedded, nil
	}
	p := &Plugins{}
	if err == nil {
		err = json.Unmarshal(data, p)
	}
	if err != nil {
		return nil, fmt.Errorf("pod network: %w", err)
	}
	return p.network(dir), nil
}
