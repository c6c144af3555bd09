// SPDX-License-Identifier: Apache-2.0

package provisioner_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/volumebinder"
	"kaji/internal/provisioner"
	"kaji/kajitest"
)

// fixture is a control plane with the binder and the classes "wait" (deletes),
// "keep" (retains) and "now" (deletes, binds immediately).
type fixture struct {
	*testing.T
	api     client.Interface
	claims  client.Typed[*corev1.PersistentVolumeClaim]
	volumes client.Typed[*corev1.PersistentVolume]
}

func start(t *testing.T) *fixture {
	api := kajitest.Start(t).Client()
	f := &fixture{t, api, client.For[*corev1.PersistentVolumeClaim](api), client.For[*corev1.PersistentVolume](api)}
	f.run(volumebinder.New(volumebinder.Config{Client: api}).Run)
	for name, how := range map[string]struct {
		policy corev1.PersistentVolumeReclaimPolicy
		mode   storagev1.VolumeBindingMode
	}{
		"wait": {corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingWaitForFirstConsumer},
		"keep": {corev1.PersistentVolumeReclaimRetain, storagev1.VolumeBindingWaitForFirstConsumer},
		"now":  {corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingImmediate},
	} {
		expand := true
		_, err := client.For[*storagev1.StorageClass](api).Create(t.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name},
			Provisioner: provisioner.Name, ReclaimPolicy: &how.policy, VolumeBindingMode: &how.mode, AllowVolumeExpansion: &expand})
		if err != nil {
			t.Fatal(err)
		}
	}
	api.Start(t.Context())
	return f
}

func (f *fixture) run(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			f.Error(err)
		}
	})
	f.Cleanup(func() { cancel(); group.Wait() })
}

// node makes a Node and its provisioner, and returns the root of its volumes.
func (f *fixture) node(name string) string {
	f.Helper()
	_, err := client.For[*corev1.Node](f.api).Create(f.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}})
	if err != nil {
		f.Fatal(err)
	}
	root := filepath.Join(f.TempDir(), "volumes")
	p, err := provisioner.New(provisioner.Config{Client: f.api, NodeName: name, Root: root})
	if err != nil {
		f.Fatal(err)
	}
	f.run(p.Run)
	return root
}

// claim makes a claim, for a pod on a node unless that is empty.
func (f *fixture) claim(name, class, node string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	f.Helper()
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	if node != "" {
		c.Annotations = map[string]string{"volume.kubernetes.io/selected-node": node}
	}
	for _, f := range change {
		f(c)
	}
	c, err := f.claims.Create(f.Context(), c)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

func (f *fixture) wait(what string, ok func() bool) {
	f.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			f.Fatalf("%s: not in time", what)
		}
	}
}

// bound waits until a claim has its volume.
func (f *fixture) bound(name string) *corev1.PersistentVolume {
	f.Helper()
	var v *corev1.PersistentVolume
	f.wait("claim "+name+" bound", func() bool {
		c, err := f.claims.Get(f.Context(), "default", name)
		if err != nil || c.Status.Phase != corev1.ClaimBound {
			return false
		}
		v, err = f.volumes.Get(f.Context(), "", c.Spec.VolumeName)
		return err == nil && v.Status.Phase == corev1.VolumeBound
	})
	return v
}

func (f *fixture) events(name string) (out []string) {
	events, err := client.For[*corev1.Event](f.api).List(f.Context(), "default", metav1.ListOptions{})
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range events {
		if e.InvolvedObject.Name == name && e.Source.Component == provisioner.Name {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out
}

// A claim's volume is a directory of the chosen node, grows with it and goes
// with it.
func TestLife(t *testing.T) {
	f := start(t)
	root, other := f.node("n1"), f.node("n2")
	c := f.claim("data", "wait", "n1")
	v := f.bound("data")
	dir := filepath.Join(root, "pvc-"+string(c.UID)+"_default_data")
	if v.Name != "pvc-"+string(c.UID) || v.Spec.Local == nil || v.Spec.Local.Path != dir {
		t.Fatalf("the volume is %s at %+v", v.Name, v.Spec.Local)
	}
	if e := v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]; e.Key != "kubernetes.io/hostname" || len(e.Values) != 1 || e.Values[0] != "n1" {
		t.Errorf("it belongs to %+v", e)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("its directory: %v, %v", info, err)
	}
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the root: %v, %v", info, err)
	}
	if left, _ := os.ReadDir(other); len(left) > 0 {
		t.Errorf("the other node made %v", left)
	}
	f.wait("events", func() bool {
		all := strings.Join(f.events("data"), "\n")
		return strings.Contains(all, `Provisioning: External provisioner is provisioning volume for claim "default/data"`) &&
			strings.Contains(all, "ProvisioningSucceeded: Successfully provisioned volume "+v.Name)
	})

	if _, err := f.claims.MergePatch(t.Context(), "default", "data", map[string]any{"spec": map[string]any{"resources": map[string]any{"requests": map[string]any{"storage": "3Gi"}}}}, ""); err != nil {
		t.Fatal(err)
	}
	f.wait("growth", func() bool {
		c, err := f.claims.Get(t.Context(), "default", "data")
		if err != nil {
			t.Fatal(err)
		}
		v, err := f.volumes.Get(t.Context(), "", v.Name)
		return err == nil && c.Status.Capacity.Storage().String() == "3Gi" && v.Spec.Capacity.Storage().String() == "3Gi"
	})

	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.claims.Delete(t.Context(), "default", "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.wait("removal", func() bool {
		_, err := f.volumes.Get(t.Context(), "", v.Name)
		left, _ := os.ReadDir(root)
		return apierrors.IsNotFound(err) && len(left) == 0
	})
}

// Of the nodes that could take a claim nobody chose a node for, one does.
func TestImmediate(t *testing.T) {
	f := start(t)
	roots := []string{f.node("n1"), f.node("n2")}
	f.claim("a", "now", "")
	v := f.bound("a")
	f.wait("one directory", func() bool {
		var left int
		for _, root := range roots {
			entries, _ := os.ReadDir(root)
			left += len(entries)
		}
		return left == 1
	})
	if _, err := os.Stat(v.Spec.Local.Path); err != nil {
		t.Error(err)
	}
}

// Retain keeps the directory, also when the volume is deleted.
func TestRetain(t *testing.T) {
	f := start(t)
	f.node("n1")
	f.claim("a", "keep", "n1")
	v := f.bound("a")
	if err := f.claims.Delete(t.Context(), "default", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.wait("release", func() bool {
		v, err := f.volumes.Get(t.Context(), "", v.Name)
		return err == nil && v.Status.Phase == corev1.VolumeReleased
	})
	if err := f.volumes.Delete(t.Context(), "", v.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.wait("the volume's end", func() bool {
		_, err := f.volumes.Get(t.Context(), "", v.Name)
		return apierrors.IsNotFound(err)
	})
	if _, err := os.Stat(v.Spec.Local.Path); err != nil {
		t.Error(err)
	}
}

// A volume deleted before its claim takes its directory along all the same, and
// one whose policy was changed to Retain does not.
func TestDeletedFirst(t *testing.T) {
	f := start(t)
	f.node("n1")
	for _, keep := range []bool{false, true} {
		f.claim("a", "wait", "n1")
		v := f.bound("a")
		if keep {
			if _, err := f.volumes.MergePatch(t.Context(), "", v.Name, map[string]any{"spec": map[string]any{"persistentVolumeReclaimPolicy": "Retain"}}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.volumes.Delete(t.Context(), "", v.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := f.claims.Delete(t.Context(), "default", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		f.wait("the volume's end", func() bool {
			_, err := f.volumes.Get(t.Context(), "", v.Name)
			return apierrors.IsNotFound(err)
		})
		if _, err := os.Stat(v.Spec.Local.Path); (err == nil) != keep {
			t.Errorf("kept %v: %v", keep, err)
		}
	}
}

func TestRefused(t *testing.T) {
	f := start(t)
	root := f.node("n1")
	f.claim("device", "wait", "n1", func(c *corev1.PersistentVolumeClaim) {
		block := corev1.PersistentVolumeBlock
		c.Spec.VolumeMode = &block
	})
	f.claim("chosen", "wait", "n1", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	})
	for name, want := range map[string]string{
		"device": `ProvisioningFailed: failed to provision volume with StorageClass "wait": block volumes are not supported by kaji/local`,
		"chosen": `ProvisioningFailed: failed to provision volume with StorageClass "wait": claim Selector is not supported`,
	} {
		f.wait("event of "+name, func() bool { return strings.Contains(strings.Join(f.events(name), "\n"), want) })
	}
	if left, _ := os.ReadDir(root); len(left) > 0 {
		t.Errorf("made %v", left)
	}
}

// A volume that somebody wrote with another path than this node's volumes have
// costs nobody anything.
func TestForeignPath(t *testing.T) {
	f := start(t)
	f.node("n1")
	f.claim("a", "wait", "n1")
	v := f.bound("a")
	foreign := filepath.Join(t.TempDir(), "pvc-1")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	fake := v.DeepCopy()
	fake.ObjectMeta = metav1.ObjectMeta{Name: "fake", Annotations: v.Annotations}
	fake.Spec.Local.Path = foreign
	fake.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "default", Name: "gone", UID: "1"}
	if _, err := f.volumes.Create(t.Context(), fake); err != nil {
		t.Fatal(err)
	}
	f.wait("release", func() bool {
		fake, err := f.volumes.Get(t.Context(), "", "fake")
		return err == nil && fake.Status.Phase == corev1.VolumeReleased
	})
	// What comes after it is served: it was looked at by then.
	f.claim("b", "wait", "n1")
	f.bound("b")
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}
