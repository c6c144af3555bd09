// SPDX-License-Identifier: Apache-2.0

package local

import (
	"slices"
	"strings"

	"kaji/internal/app/daemon"
	"kaji/internal/app/ownnet"
)

const networkFlag = "--network="

// OwnNetwork returns the cluster's own network, if it has one: what --network says,
// or what the cluster was started with last when that is empty.
func OwnNetwork(c Cluster, network string) (n ownnet.Network, own bool, err error) {
	if network == "" || network == "own" {
		before, err := Remembered(c.Dir)
		if err != nil {
			return n, false, err
		}
		for _, a := range before {
			if value, ok := strings.CutPrefix(a, networkFlag); ok && (network == "" || value != "host") {
				network = value
			}
		}
	}
	switch network {
	case "", "host":
		return n, false, nil
	case "own":
		n, err = ownnet.Choose(c.Name)
	default:
		n, err = ownnet.Parse(c.Name, network)
	}
	return n, err == nil, err
}

// Place decides where a cluster lives that is about to start: where it did, or
// where it shall; else in the machine's network, or in one of its own when
// another cluster lives there. It returns the value of --network, and the
// arguments with it.
func Place(c Cluster, network string, args []string) (string, []string, error) {
	pid, err := daemon.Running(c.Dir.PID())
	if err != nil {
		return "", nil, err
	}
	own, isOwn, err := OwnNetwork(c, network)
	if err != nil {
		return "", nil, err
	}
	if !isOwn && network == "" && pid == 0 {
		if holder := daemon.NetworkHolder(); holder != "" {
			own, err = ownnet.Choose(c.Name)
			isOwn = true
		}
	}
	if err != nil {
		return "", nil, err
	}
	if isOwn {
		network = own.Range.String()
	}
	if network == "" {
		return network, args, nil
	}
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, networkFlag) })
	return network, append(args, networkFlag+network), nil
}

// Enter brings this process into the cluster's own network, if it has one. A
// cluster that nobody brought up keeps the arguments, so that others find it.
func Enter(c Cluster, network string, args []string) error {
	own, isOwn, err := OwnNetwork(c, network)
	if err != nil || !isOwn {
		return err
	}
	if !exists(c.Dir.Settings()) {
		_, args, err = Place(c, own.Range.String(), args)
		if err == nil {
			err = remember(c.Dir, args)
		}
		if err != nil {
			return err
		}
	}
	return own.Enter()
}
