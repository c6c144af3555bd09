// SPDX-License-Identifier: Apache-2.0

// Package csi gives pods the volumes of CSI drivers, which register on the node:
// persistent ones, attached and staged as the driver wants it, and ephemeral
// ones that the pod itself describes. What it needs to take a volume away again
// stands in a file beside it, as upstream has it.
//
// It does not ask drivers how full volumes are: the file systems tell that.
package csi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/kubelet/volume"
)

// Driver implements volume.Driver.
type Driver struct {
	Registry *Registry
	Mounter  volume.Mounter
	Client   client.Interface
	NodeName string
	// PluginsDir is "<root>/plugins", PodsDir "<root>/pods".
	PluginsDir, PodsDir string
	// Tokens issues tokens of the pod's service account.
	Tokens func(ctx context.Context, pod *corev1.Pod, spec *corev1.ServiceAccountTokenProjection) (string, error)
	// InUse is told the attachable volumes that must not be detached.
	InUse func([]corev1.UniqueVolumeName)

	// Republish is how often drivers that want it are asked for a volume again; zero
	// means a minute.
	Republish time.Duration

	// turns are when, by the target.
	turns sync.Map
	mu    sync.Mutex
	inUse map[corev1.UniqueVolumeName]bool // guarded by mu
	// volumes serializes what happens to one volume of several pods.
	volumes sync.Map
}

var _ volume.Driver = (*Driver)(nil)

const (
	// dataFile says beside a volume what it is.
	dataFile = "vol_data.json"
	// call bounds one call of a driver.
	call = 2 * time.Minute
	// attachWait is how long one look waits for the volume to be attached.
	attachWait = 10 * time.Second
	// republish is how often drivers that want it are asked for a volume again.
	republish = time.Minute
)

// data is what stands in the file. Names are upstream's, Target and Staging are
// this agent's own.
type data struct {
	Driver  string `json:"driverName"`
	Handle  string `json:"volumeHandle"`
	Name    string `json:"specVolID"`
	Node    string `json:"nodeName"`
	Mode    string `json:"volumeLifecycleMode"`
	Target  string `json:"kaji.target"`
	Staging string `json:"kaji.staging,omitempty"`
	Attach  bool   `json:"kaji.attached,omitempty"`
	Label   string `json:"selinuxMountContext,omitempty"`
}

// Name implements volume.Driver.
func (*Driver) Name() string { return "kubernetes.io/csi" }

// Handles implements volume.Driver.
func (*Driver) Handles(s volume.Source) bool {
	if s.Persistent != nil {
		return s.Persistent.Spec.CSI != nil
	}
	return s.Volume.CSI != nil
}

// Setup implements volume.Driver.
func (d *Driver) Setup(ctx context.Context, r volume.Request) (volume.Mounted, error) {
	v := d.describe(r)
	mounted := volume.Mounted{Path: v.data.Target, Block: r.Source.Block(), ReadOnly: v.readOnly}
	defer d.lock(v.data.Driver + "^" + v.data.Handle)()
	if done, err := os.ReadFile(filepath.Join(r.Dir, dataFile)); err == nil && d.published(v.data.Target, mounted.Block) {
		var was data
		if json.Unmarshal(done, &was) == nil && was.Handle == v.data.Handle {
			if was.Attach { // an agent that has restarted does not know yet
				d.use(v.unique(), true)
			}
			v.data.Label, mounted.Labeled = was.Label, was.Label != ""
			return d.again(ctx, v, mounted, r)
		}
	}
	driver, err := d.Registry.driver(v.data.Driver)
	if err != nil {
		return mounted, err
	}
	settings, err := d.settings(ctx, v.data.Driver)
	if err != nil {
		return mounted, err
	}
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	if err := v.complete(ctx, d, settings, driver, r); err != nil {
		return mounted, err
	}
	if err := v.save(r.Dir); err != nil {
		return mounted, err
	}
	if err := v.mount(ctx, driver); err != nil {
		return mounted, err
	}
	mounted.Again, mounted.Labeled = d.done(v, settings), v.data.Label != ""
	return mounted, v.own(settings, driver, r)
}

// turn is when a volume is to be published again, or only to be asked about again.
type turn struct {
	at     time.Time
	wanted bool
}

// done notes that a volume was published, and returns when it is to be again.
func (d *Driver) done(v *described, settings *storagev1.CSIDriverSpec) time.Time {
	every := cmp.Or(d.Republish, republish)
	if !ptr.Deref(settings.RequiresRepublish, false) {
		d.turns.Store(v.data.Target, turn{at: time.Now().Add(10 * every)})
		return time.Time{}
	}
	at := time.Now().Add(every)
	d.turns.Store(v.data.Target, turn{at, true})
	return at
}

// again publishes a volume once more, where its driver wants that and it is time:
// what is in it may have changed, or the pod's tokens.
func (d *Driver) again(ctx context.Context, v *described, mounted volume.Mounted, r volume.Request) (volume.Mounted, error) {
	if known, ok := d.turns.Load(v.data.Target); ok {
		if t := known.(turn); time.Now().Before(t.at) { //nolint:forcetypeassert // only those are stored
			if t.wanted {
				mounted.Again = t.at
			}
			return mounted, nil
		}
	}
	settings, err := d.settings(ctx, v.data.Driver)
	if err != nil {
		return mounted, nil //nolint:nilerr // the volume is there; the next look asks again
	}
	var failed error
	if ptr.Deref(settings.RequiresRepublish, false) {
		driver, err := d.Registry.driver(v.data.Driver)
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, call)
			defer cancel()
			if err = v.complete(ctx, d, settings, driver, r); err == nil {
				err = v.publish(ctx, driver)
			}
		}
		failed = err
	}
	mounted.Again = d.done(v, settings)
	return mounted, failed
}

// published says whether a driver has mounted a volume at its target.
func (d *Driver) published(target string, block bool) bool {
	info, err := os.Stat(target)
	if err != nil {
		return false
	}
	if block {
		return info.Mode()&os.ModeDevice != 0
	}
	mounted, err := d.Mounter.Mounted(target)
	return err == nil && mounted
}

// lock keeps others from a volume until what it returns is called.
func (d *Driver) lock(key string) func() {
	l, _ := d.volumes.LoadOrStore(key, &sync.Mutex{})
	mu := l.(*sync.Mutex) //nolint:forcetypeassert // only those are stored
	mu.Lock()
	return mu.Unlock
}

// settings are what the driver's CSIDriver says, upstream's defaults without one.
func (d *Driver) settings(ctx context.Context, name string) (*storagev1.CSIDriverSpec, error) {
	spec := &storagev1.CSIDriverSpec{}
	o, err := client.For[*storagev1.CSIDriver](d.Client).Get(ctx, "", name)
	switch {
	case err == nil:
		spec = o.Spec.DeepCopy()
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	if spec.FSGroupPolicy == nil {
		spec.FSGroupPolicy = ptr.To(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(spec.VolumeLifecycleModes) == 0 {
		spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	return spec, nil
}

// described is one volume on its way.
type described struct {
	data       data
	readOnly   bool
	fsType     string
	capability *csispec.VolumeCapability
	modes      []corev1.PersistentVolumeAccessMode
	context    map[string]string
	published  map[string]string // what the controller's side said at attaching
	stageRef   *corev1.SecretReference
	publishRef *corev1.SecretReference
	stageWith  map[string]string
	with       map[string]string
}

func (d *Driver) describe(r volume.Request) *described {
	v := &described{data: data{Node: d.NodeName, Target: filepath.Join(r.Dir, "mount")}, context: map[string]string{}}
	if inline := r.Source.Volume.CSI; r.Source.Persistent == nil {
		v.data.Driver, v.data.Name, v.data.Mode = inline.Driver, r.Source.Name, string(storagev1.VolumeLifecycleEphemeral)
		v.data.Handle = fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(r.Pod.UID)+r.Source.Name)))
		v.readOnly, v.fsType = ptr.Deref(inline.ReadOnly, false), ptr.Deref(inline.FSType, "")
		for k, value := range inline.VolumeAttributes {
			v.context[k] = value
		}
		if inline.NodePublishSecretRef != nil {
			v.publishRef = &corev1.SecretReference{Namespace: r.Pod.Namespace, Name: inline.NodePublishSecretRef.Name}
		}
		v.capability = capability(v.fsType, nil, nil, false)
		return v
	}
	pv := r.Source.Persistent
	spec := pv.Spec.CSI
	v.data.Driver, v.data.Handle, v.data.Name, v.data.Mode = spec.Driver, spec.VolumeHandle, pv.Name, string(storagev1.VolumeLifecyclePersistent)
	v.readOnly, v.fsType, v.stageRef, v.publishRef = spec.ReadOnly || r.Source.ReadOnly, spec.FSType, spec.NodeStageSecretRef, spec.NodePublishSecretRef
	for k, value := range spec.VolumeAttributes {
		v.context[k] = value
	}
	v.capability, v.modes = capability(v.fsType, pv.Spec.MountOptions, pv.Spec.AccessModes, r.Source.Block()), pv.Spec.AccessModes
	base := filepath.Join(d.PluginsDir, "kubernetes.io", "csi")
	v.data.Staging = filepath.Join(base, spec.Driver, fmt.Sprintf("%x", sha256.Sum256([]byte(spec.VolumeHandle))), "globalmount")
	if r.Source.Block() {
		v.data.Staging = filepath.Join(base, "volumeDevices", "staging", pv.Name)
		v.data.Target = filepath.Join(base, "volumeDevices", "publish", pv.Name, string(r.Pod.UID))
	}
	return v
}

// complete finds out what only others know.
func (v *described) complete(ctx context.Context, d *Driver, settings *storagev1.CSIDriverSpec, driver *registered, r volume.Request) (err error) {
	if !slices.Contains(settings.VolumeLifecycleModes, storagev1.VolumeLifecycleMode(v.data.Mode)) {
		return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", v.data.Mode, v.data.Driver, settings.VolumeLifecycleModes)
	}
	if !driver.stage {
		v.data.Staging = ""
	}
	v.writers(driver)
	if err := v.label(settings, r); err != nil {
		return err
	}
	persistent := r.Source.Persistent != nil
	if persistent && ptr.Deref(settings.AttachRequired, true) {
		v.data.Attach = true
		d.use(v.unique(), true)
		if v.published, err = d.attached(ctx, v, settings); err != nil {
			return err
		}
	}
	if ptr.Deref(settings.PodInfoOnMount, false) {
		v.context["csi.storage.k8s.io/pod.name"], v.context["csi.storage.k8s.io/pod.namespace"] = r.Pod.Name, r.Pod.Namespace
		v.context["csi.storage.k8s.io/pod.uid"], v.context["csi.storage.k8s.io/serviceAccount.name"] = string(r.Pod.UID), r.Pod.Spec.ServiceAccountName
		v.context["csi.storage.k8s.io/ephemeral"] = strconv.FormatBool(!persistent)
	}
	if err := d.tokens(ctx, v, settings, r.Pod); err != nil {
		return err
	}
	if driver.group && r.FSGroup != nil && v.grouped(settings, r) {
		if m := v.capability.GetMount(); m != nil {
			m.VolumeMountGroup = strconv.FormatInt(*r.FSGroup, 10)
		}
	}
	if v.stageWith, err = d.secret(ctx, v.stageRef); err != nil {
		return err
	}
	v.with, err = d.secret(ctx, v.publishRef)
	return err
}

func (v *described) unique() corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + v.data.Driver + "^" + v.data.Handle)
}

// use notes whether a volume is in use, which keeps it attached.
func (d *Driver) use(name corev1.UniqueVolumeName, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inUse == nil {
		d.inUse = map[corev1.UniqueVolumeName]bool{}
	}
	if on {
		d.inUse[name] = true
	} else {
		delete(d.inUse, name)
	}
	var all []corev1.UniqueVolumeName
	for n := range d.inUse {
		all = append(all, n)
	}
	slices.Sort(all)
	if d.InUse != nil {
		d.InUse(all)
	}
}

// attached waits a while for the volume to be attached to the node. Where it cannot
// be for the number of those that are, drivers whose limit changes are asked for it.
func (d *Driver) attached(ctx context.Context, v *described, settings *storagev1.CSIDriverSpec) (map[string]string, error) {
	name := fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.data.Handle+v.data.Driver+d.NodeName)))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(attachWait)
	for {
		a, err := client.For[*storagev1.VolumeAttachment](d.Client).Get(ctx, "", name)
		switch {
		case err == nil && a.Status.Attached && a.DeletionTimestamp == nil:
			return a.Status.AttachmentMetadata, nil
		case err == nil && a.Status.AttachError != nil && a.Status.AttachError.ErrorCode != nil &&
			codes.Code(*a.Status.AttachError.ErrorCode) == codes.ResourceExhausted && settings.NodeAllocatableUpdatePeriodSeconds != nil: //nolint:gosec // validated
			_ = d.Registry.Refresh(ctx, v.data.Driver) // the next look of Limits tries again
			d.use(v.unique(), false)
			return nil, &volume.Error{Reason: volume.AttachLimit, Message: a.Status.AttachError.Message}
		case err == nil && a.Status.AttachError != nil:
			return nil, &volume.Error{Reason: "FailedAttachVolume", Message: fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", v.data.Name, a.Status.AttachError.Message)}
		case err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
			return nil, err
		}
		select {
		case <-tick.C:
		case <-limit:
			return nil, fmt.Errorf("timed out waiting for external-attacher of %s CSI driver to attach volume %s", v.data.Driver, v.data.Handle)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tokens adds the tokens that the driver wants to act for the pod with.
func (d *Driver) tokens(ctx context.Context, v *described, settings *storagev1.CSIDriverSpec, pod *corev1.Pod) error {
	if len(settings.TokenRequests) == 0 {
		return nil
	}
	out := map[string]map[string]string{}
	for _, t := range settings.TokenRequests {
		token, err := d.Tokens(ctx, pod, &corev1.ServiceAccountTokenProjection{Audience: t.Audience, ExpirationSeconds: t.ExpirationSeconds})
		if err != nil {
			return err
		}
		life := ptr.Deref(t.ExpirationSeconds, 3600)
		out[t.Audience] = map[string]string{"token": token, "expirationTimestamp": time.Now().Add(time.Duration(life) * time.Second).UTC().Format(time.RFC3339)}
	}
	text, err := json.Marshal(out)
	v.context["csi.storage.k8s.io/serviceAccount.tokens"] = string(text)
	return err
}

func (d *Driver) secret(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil || ref.Name == "" {
		return nil, nil
	}
	s, err := client.For[*corev1.Secret](d.Client).Get(ctx, ref.Namespace, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("fetching NodeStageSecretRef/NodePublishSecretRef %s/%s failed: %w", ref.Namespace, ref.Name, err)
	}
	out := map[string]string{}
	for k, value := range s.Data {
		out[k] = string(value)
	}
	return out, nil
}

// Teardown implements volume.Driver.
func (d *Driver) Teardown(ctx context.Context, dir, _, _ string) error {
	text, err := os.ReadFile(filepath.Join(dir, dataFile))
	if errors.Is(err, os.ErrNotExist) {
		return remove(dir)
	}
	if err != nil {
		return err
	}
	var v described
	if err := json.Unmarshal(text, &v.data); err != nil {
		return fmt.Errorf("read what the volume is: %w", err)
	}
	defer d.lock(v.data.Driver + "^" + v.data.Handle)()
	driver, err := d.Registry.driver(v.data.Driver)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	last, err := d.last(dir, &v)
	if err != nil {
		return err
	}
	if err := v.unmount(ctx, driver, dir, last); err != nil {
		return err
	}
	d.turns.Delete(v.data.Target)
	if last && v.data.Attach {
		d.use(v.unique(), false)
	}
	return nil
}

var _ volume.Expander = (*Driver)(nil)

// Expand implements volume.Expander.
func (d *Driver) Expand(ctx context.Context, r volume.Request, size resource.Quantity) error {
	driver, err := d.Registry.driver(r.Source.Persistent.Spec.CSI.Driver)
	if err != nil || !driver.expand {
		return err
	}
	v := d.describe(r)
	if v.readOnly {
		return nil
	}
	defer d.lock(v.data.Driver + "^" + v.data.Handle)()
	if !driver.stage {
		v.data.Staging = ""
	}
	v.writers(driver)
	secrets, err := d.secret(ctx, r.Source.Persistent.Spec.CSI.NodeExpandSecretRef)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	_, err = driver.node.NodeExpandVolume(ctx, &csispec.NodeExpandVolumeRequest{VolumeId: v.data.Handle, VolumePath: v.data.Target, StagingTargetPath: v.data.Staging,
		CapacityRange: &csispec.CapacityRange{RequiredBytes: size.Value()}, VolumeCapability: v.capability, Secrets: secrets})
	return err
}

// last says whether no other pod of the node has the volume.
func (d *Driver) last(dir string, v *described) (bool, error) {
	files, err := filepath.Glob(filepath.Join(d.PodsDir, "*", "volumes", "kubernetes.io~csi", "*", dataFile))
	if err != nil {
		return false, err
	}
	for _, path := range files {
		if filepath.Dir(path) == dir {
			continue
		}
		var other data
		text, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(text, &other) != nil {
			continue // it is being taken away, or made
		}
		if other.Driver == v.data.Driver && other.Handle == v.data.Handle {
			return false, nil
		}
	}
	return true, nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
