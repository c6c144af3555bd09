// SPDX-License-Identifier: Apache-2.0

package dynamicresources

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Extended resources that a device class stands for (KEP-5004) are claimed on
// the pod's behalf: each node that has no such resource of its own is asked for
// the devices, and the claim is written once a node is chosen.

// special is what an attempt knows of the claim for extended resources.
type special struct {
	pod    *corev1.Pod
	wants  map[corev1.ResourceName]int64
	stale  *resourcev1.ResourceClaim // left over from an attempt that failed
	nodes  map[string]nodeClaim
	chosen *resourcev1.ResourceClaim // as it must be written, without a name
	made   *resourcev1.ResourceClaim // as it was written
}

// nodeClaim is the claim as one node would have it, and which container gets
// which of its requests.
type nodeClaim struct {
	claim    *resourcev1.ResourceClaim
	mappings []corev1.ContainerExtendedResourceRequest
	// result is the place of its allocation among those of the node.
	result int
}

// promise is a claim for extended resources that is not in the informer yet.
type promise struct {
	claim *resourcev1.ResourceClaim
	name  string    // once it is written
	since time.Time // of the name
}

// promiseLasts bounds how long the informer may take to show a claim that was
// written; one that it has not shown by then is gone again.
const promiseLasts = 30 * time.Second

// special looks for extended resources of the pod that are devices, nil when
// there are none.
func (p *Plugin) special(c *plugin.Cycle) *special {
	if !plugin.RequestsDevices(c.Snapshot, c.Pod, p.classes) {
		return nil
	}
	sp := &special{pod: c.Pod.Object, wants: map[corev1.ResourceName]int64{}, nodes: map[string]nodeClaim{}}
	for id, amount := range c.Pod.Requests.Scalars {
		if name := c.Snapshot.ScalarName(id); amount != 0 && plugin.MayBeDevice(name) {
			sp.wants[name] = amount
		}
	}
	for _, claim := range p.claims.CachedList(sp.pod.Namespace, nil) {
		if claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] == "true" && metav1.IsControlledBy(claim, sp.pod) {
			sp.stale = claim
		}
	}
	return sp
}

// on makes the claim that the node would have to satisfy; false when the node
// has the resources itself.
func (p *Plugin) on(sp *special, n *snapshot.Node) (nodeClaim, bool, *plugin.Status) {
	var devices []corev1.ResourceName
	for name := range sp.wants {
		has, known := n.Object.Status.Allocatable[name]
		switch {
		case has.IsZero() && plugin.DeviceClassOf(p.classes, name) != nil:
			devices = append(devices, name)
		case !known:
			return nodeClaim{}, false, plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "cannot fit resource")
		}
	}
	if len(devices) == 0 {
		return nodeClaim{}, false, nil
	}
	slices.Sort(devices)
	nc := nodeClaim{claim: &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: sp.pod.Namespace, GenerateName: sp.pod.Name + "-extended-resources-", UID: "extended-" + sp.pod.UID,
		Annotations: map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: sp.pod.Name, UID: sp.pod.UID,
			Controller: ptr.To(true)}},
	}}}
	for _, name := range devices {
		reqs, mappings := deviceRequests(sp.pod, name, plugin.DeviceClassOf(p.classes, name).Name)
		nc.claim.Spec.Devices.Requests = append(nc.claim.Spec.Devices.Requests, reqs...)
		nc.mappings = append(nc.mappings, mappings...)
	}
	slices.SortFunc(nc.claim.Spec.Devices.Requests, func(a, b resourcev1.DeviceRequest) int { return cmp.Compare(a.Name, b.Name) })
	return nc, true, nil
}

// deviceRequests turns what the containers request of one resource into
// requests of a claim. Init containers that end before the others start use
// the devices of those, and only the largest need beyond that is requested.
func deviceRequests(pod *corev1.Pod, name corev1.ResourceName, class string) (reqs []resourcev1.DeviceRequest, mappings []corev1.ContainerExtendedResourceRequest) {
	inits := len(pod.Spec.InitContainers)
	all := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	passing := func(i int) bool {
		return i < inits && ptr.Deref(all[i].RestartPolicy, "") != corev1.ContainerRestartPolicyAlways
	}
	lasting := make([]*resourcev1.DeviceRequest, len(all))
	for i := range all {
		if !passing(i) {
			var m []corev1.ContainerExtendedResourceRequest
			lasting[i], m = deviceRequest(&all[i], i, name, class, nil)
			mappings = append(mappings, m...)
		}
	}
	var largest *resourcev1.DeviceRequest
	var brief []corev1.ContainerExtendedResourceRequest
	extra := map[string]bool{}
	for i := range all {
		if !passing(i) {
			continue
		}
		req, m := deviceRequest(&all[i], i, name, class, lasting[i:])
		if req != nil {
			extra[req.Name] = true
			if largest == nil || largest.Exactly.Count < req.Exactly.Count {
				largest = req
			}
		}
		brief = append(brief, m...)
	}
	if largest != nil {
		reqs = append(reqs, *largest)
		for i := range brief {
			if extra[brief[i].RequestName] {
				brief[i].RequestName = largest.Name
			}
		}
	}
	for _, r := range lasting {
		if r != nil {
			reqs = append(reqs, *r)
		}
	}
	return reqs, append(mappings, brief...)
}

// deviceRequest is what one container requests beyond the requests of others
// that it may use, nil for nothing, and the requests it uses.
func deviceRequest(c *corev1.Container, index int, name corev1.ResourceName, class string, others []*resourcev1.DeviceRequest) (*resourcev1.DeviceRequest, []corev1.ContainerExtendedResourceRequest) {
	q := c.Resources.Requests[name]
	need := q.Value()
	if need == 0 {
		return nil, nil
	}
	var mappings []corev1.ContainerExtendedResourceRequest
	uses := func(request string) {
		mappings = append(mappings, corev1.ContainerExtendedResourceRequest{ContainerName: c.Name, ResourceName: string(name), RequestName: request})
	}
	for _, r := range others {
		if r == nil {
			continue
		}
		need -= r.Exactly.Count
		uses(r.Name)
		if need <= 0 {
			return nil, mappings
		}
	}
	names := make([]string, 0, len(c.Resources.Requests))
	for n := range c.Resources.Requests {
		names = append(names, string(n))
	}
	slices.Sort(names)
	request := fmt.Sprintf("container-%d-request-%d", index, slices.Index(names, string(name)))
	uses(request)
	return &resourcev1.DeviceRequest{Name: request, Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: need}}, mappings
}

// reserve promises the devices of the chosen node.
func (sp *special) reserve(p *Plugin, nodeName string, results []resourcev1.AllocationResult) *plugin.Status {
	nc, ok := sp.nodes[nodeName]
	if !ok {
		return nil // the node has the resources itself
	}
	if nc.result >= len(results) {
		return plugin.AsStatus(Name, errors.New("claim allocation not found for node"))
	}
	sp.chosen = nc.claim.DeepCopy()
	sp.chosen.Status.Allocation = &results[nc.result]
	sp.chosen.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: sp.pod.Name, UID: sp.pod.UID}}
	p.promises.extended[sp.pod.UID] = &promise{claim: sp.chosen}
	return nil
}

// promised calls yield for the claims that are promised and that the informer
// does not show yet; those that it does show are forgotten.
func (p *Plugin) promised(yield func(*resourcev1.ResourceClaim)) {
	for uid, pr := range p.promises.extended {
		if pr.name != "" {
			shown, err := p.claims.Cached(pr.claim.Namespace, pr.name)
			if err == nil && shown.Status.Allocation != nil || time.Since(pr.since) > promiseLasts {
				delete(p.promises.extended, uid)
				continue
			}
		}
		yield(pr.claim)
	}
}

// unreserve takes the promise back, and the claim when it was written.
func (sp *special) unreserve(p *Plugin) {
	delete(p.promises.extended, sp.pod.UID)
	if made := sp.made; made != nil {
		p.h.Go(func(ctx context.Context) { _ = p.remove(ctx, made) })
	}
}

// remove deletes a claim in spite of its finalizer.
func (p *Plugin) remove(ctx context.Context, claim *resourcev1.ResourceClaim) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err := p.claims.Get(ctx, claim.Namespace, claim.Name)
		if err != nil {
			return err
		}
		now = now.DeepCopy()
		now.Finalizers = slices.DeleteFunc(now.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		_, err = p.claims.Update(ctx, now)
		return err
	})
	if err == nil {
		err = p.claims.Delete(ctx, claim.Namespace, claim.Name, metav1.DeleteOptions{})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// write creates the claim and gives it its allocation.
func (sp *special) write(ctx context.Context, p *Plugin, nodeName string) (*resourcev1.ResourceClaim, error) {
	fresh := sp.chosen.DeepCopy()
	fresh.UID, fresh.Status = "", resourcev1.ResourceClaimStatus{}
	made, err := p.claims.Create(ctx, fresh)
	if err != nil {
		return nil, fmt.Errorf("create claim for extended resources %s/: %w", fresh.Namespace, err)
	}
	sp.made = made
	next := made.DeepCopy()
	next.Status = *sp.chosen.Status.DeepCopy()
	written, err := p.write(ctx, next)
	if err != nil {
		return nil, err
	}
	uid := sp.pod.UID
	p.h.Post(func() {
		if pr := p.promises.extended[uid]; pr != nil {
			pr.name, pr.since = made.Name, time.Now()
		}
	})
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"extendedResourceClaimStatus": corev1.PodExtendedResourceClaimStatus{
		RequestMappings: sp.nodes[nodeName].mappings, ResourceClaimName: made.Name}}})
	if err != nil {
		return nil, err
	}
	if _, err := p.pods.Patch(ctx, sp.pod.Namespace, sp.pod.Name, types.StrategicMergePatchType, patch, "status"); err != nil {
		return nil, fmt.Errorf("update pod %s/%s ExtendedResourceClaimStatus: %w", sp.pod.Namespace, sp.pod.Name, err)
	}
	return written, nil
}
