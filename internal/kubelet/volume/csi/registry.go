// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/kubelet/plugin"
)

// nodeIDs is the annotation of a Node with the names that drivers know it by.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// Registry knows the drivers that have registered on the node, and tells the
// cluster of them: in the CSINode, and in labels of the Node. It implements
// plugin.Handler. It is safe for concurrent use.
type Registry struct {
	Client   client.Interface
	NodeName string
	// Check is how often it is looked for drivers that want to be asked for their limits
	// again; zero means 10 s.
	Check time.Duration
	// Took is told of each call of a driver.
	Took plugin.Took

	mu      sync.Mutex
	drivers map[string]*registered // guarded by mu
}

var _ plugin.Handler = (*Registry)(nil)

// registered is a driver. It does not change.
type registered struct {
	conn  *grpc.ClientConn
	node  csispec.NodeClient
	id    string
	stage bool
	group bool
	// expand says that it wants to know when a volume has grown.
	expand bool
	// single says that it tells one writer from all of a node.
	single bool
	// health says that it tells what is wrong with volumes.
	health bool
}

// Register implements plugin.Handler.
func (r *Registry) Register(ctx context.Context, name, endpoint string, versions []string) error {
	if !slices.ContainsFunc(versions, func(v string) bool { return len(v) > 1 && (v[0] == '1' || v[:2] == "v1") }) {
		return fmt.Errorf("unsupported version of the driver %s: %v, want 1.x", name, versions)
	}
	conn, err := plugin.DialCounted(endpoint, name, r.Took)
	if err != nil {
		return err
	}
	d := &registered{conn: conn, node: csispec.NewNodeClient(conn)}
	info, err := d.node.NodeGetInfo(ctx, &csispec.NodeGetInfoRequest{})
	if err == nil {
		d.id = info.GetNodeId()
		err = d.capabilities(ctx)
	}
	if err == nil {
		err = r.tell(ctx, name, info)
	}
	if err != nil {
		_ = conn.Close() // it held nothing back
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drivers == nil {
		r.drivers = map[string]*registered{}
	}
	if old := r.drivers[name]; old != nil {
		_ = old.conn.Close()
	}
	r.drivers[name] = d
	return nil
}

func (d *registered) capabilities(ctx context.Context) error {
	answer, err := d.node.NodeGetCapabilities(ctx, &csispec.NodeGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	for _, c := range answer.GetCapabilities() {
		switch c.GetRpc().GetType() {
		case csispec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME:
			d.stage = true
		case csispec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP:
			d.group = true
		case csispec.NodeServiceCapability_RPC_EXPAND_VOLUME:
			d.expand = true
		case csispec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER:
			d.single = true
		case csispec.NodeServiceCapability_RPC_GET_VOLUME_HEALTH:
			d.health = true
		}
	}
	return nil
}

// limitsCheck is how often it is looked for drivers that want to be asked for their
// limits again; they are asked no more often than they say.
const limitsCheck = 10 * time.Second

// Limits asks drivers again how many volumes the node may have of them, as often
// as their CSIDriver says (KEP-4876), until ctx ends.
func (r *Registry) Limits(ctx context.Context) error {
	tick := time.NewTicker(cmp.Or(r.Check, limitsCheck))
	defer tick.Stop()
	asked := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.mu.Lock()
		names := slices.Collect(maps.Keys(r.drivers))
		r.mu.Unlock()
		for _, name := range names {
			o, err := client.For[*storagev1.CSIDriver](r.Client).Get(ctx, "", name)
			if err != nil || o.Spec.NodeAllocatableUpdatePeriodSeconds == nil {
				continue
			}
			if _, known := asked[name]; !known {
				asked[name] = time.Now() // it was when it registered
			}
			if time.Since(asked[name]) < time.Duration(*o.Spec.NodeAllocatableUpdatePeriodSeconds)*time.Second {
				continue
			}
			asked[name] = time.Now()
			_ = r.Refresh(ctx, name) // next time
		}
	}
}

// Refresh writes the limit that a driver has now.
func (r *Registry) Refresh(ctx context.Context, name string) error {
	d, err := r.driver(name)
	if err != nil {
		return err
	}
	info, err := d.node.NodeGetInfo(ctx, &csispec.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	now, err := client.For[*storagev1.CSINode](r.Client).Get(ctx, "", r.NodeName)
	if err != nil {
		return err
	}
	limit := limitOf(info)
	same := slices.ContainsFunc(now.Spec.Drivers, func(d storagev1.CSINodeDriver) bool {
		return d.Name == name && reflect.DeepEqual(d.Allocatable, limit)
	})
	if same {
		return nil
	}
	return r.change(ctx, func(n *storagev1.CSINode) {
		for i := range n.Spec.Drivers {
			if n.Spec.Drivers[i].Name == name {
				n.Spec.Drivers[i].Allocatable = limit
			}
		}
	})
}

// limitOf is how many volumes a driver says that the node may have; nil for any number.
func limitOf(info *csispec.NodeGetInfoResponse) *storagev1.VolumeNodeResources {
	most := info.GetMaxVolumesPerNode()
	if most <= 0 {
		return nil
	}
	count := int32(min(most, 1<<31-1)) //nolint:gosec // bounded
	return &storagev1.VolumeNodeResources{Count: &count}
}

// Deregister implements plugin.Handler.
func (r *Registry) Deregister(ctx context.Context, name string) {
	r.mu.Lock()
	if d := r.drivers[name]; d != nil {
		_ = d.conn.Close()
		delete(r.drivers, name)
	}
	r.mu.Unlock()
	_ = r.change(ctx, func(n *storagev1.CSINode) { // whoever registers next writes it anew
		n.Spec.Drivers = slices.DeleteFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == name })
	})
}

func (r *Registry) driver(name string) (*registered, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// tell writes what a driver says of the node.
func (r *Registry) tell(ctx context.Context, name string, info *csispec.NodeGetInfoResponse) error {
	topology := info.GetAccessibleTopology().GetSegments()
	entry := storagev1.CSINodeDriver{Name: name, NodeID: info.GetNodeId(), TopologyKeys: slices.Sorted(maps.Keys(topology))}
	entry.Allocatable = limitOf(info)
	if err := r.label(ctx, name, info.GetNodeId(), topology); err != nil {
		return err
	}
	return r.change(ctx, func(n *storagev1.CSINode) {
		n.Spec.Drivers = append(slices.DeleteFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == name }), entry)
	})
}

// label writes the topology, and the driver's name for the node, to the Node.
func (r *Registry) label(ctx context.Context, name, id string, topology map[string]string) error {
	nodes := client.For[*corev1.Node](r.Client)
	node, err := nodes.Get(ctx, "", r.NodeName)
	if err != nil {
		return err
	}
	ids := map[string]string{}
	if text := node.Annotations[nodeIDs]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			return fmt.Errorf("annotation %s of the node: %w", nodeIDs, err)
		}
	}
	ids[name] = id
	text, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	changes := map[string]any{"annotations": map[string]string{nodeIDs: string(text)}}
	if len(topology) > 0 { // a null would take all labels away
		changes["labels"] = topology
	}
	_, err = nodes.MergePatch(ctx, "", r.NodeName, map[string]any{"metadata": changes}, "")
	return err
}

// change writes the CSINode, which it makes where there is none.
func (r *Registry) change(ctx context.Context, how func(*storagev1.CSINode)) error {
	all := client.For[*storagev1.CSINode](r.Client)
	for range 5 {
		n, err := all.Get(ctx, "", r.NodeName)
		switch {
		case apierrors.IsNotFound(err):
			node, err := client.For[*corev1.Node](r.Client).Get(ctx, "", r.NodeName)
			if err != nil {
				return err
			}
			n = &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: r.NodeName,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}}}
			how(n)
			if _, err = all.Create(ctx, n); !apierrors.IsAlreadyExists(err) {
				return err
			}
		case err != nil:
			return err
		default:
			next := n.DeepCopy()
			how(next)
			if _, err = all.Update(ctx, next); !apierrors.IsConflict(err) {
				return err
			}
		}
	}
	return fmt.Errorf("the CSINode %s changes too often", r.NodeName)
}

// Ensure makes the node's CSINode, with no driver yet.
func (r *Registry) Ensure(ctx context.Context) error {
	_, err := client.For[*storagev1.CSINode](r.Client).Get(ctx, "", r.NodeName)
	if apierrors.IsNotFound(err) {
		return r.change(ctx, func(*storagev1.CSINode) {})
	}
	return err
}
