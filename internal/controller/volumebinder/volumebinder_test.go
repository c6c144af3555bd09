// SPDX-License-Identifier: Apache-2.0

package volumebinder_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/volumebinder"
)

// bench has the verbs of the tests.
type bench struct {
	*bubble.Bubble
	claims  client.Typed[*corev1.PersistentVolumeClaim]
	volumes client.Typed[*corev1.PersistentVolume]
	classes client.Typed[*storagev1.StorageClass]
}

func run(t *testing.T, test func(b *bench)) { runWith(t, volumebinder.Config{}, test) }

func runWith(t *testing.T, c volumebinder.Config, test func(b *bench)) {
	start := func(api client.Interface) []bubble.Controller {
		c.Client = api
		return []bubble.Controller{volumebinder.New(c)}
	}
	bubble.RunAs(t, "persistent-volume-binder", start, func(b *bubble.Bubble) {
		test(&bench{b, client.For[*corev1.PersistentVolumeClaim](b.API), client.For[*corev1.PersistentVolume](b.API), client.For[*storagev1.StorageClass](b.API)})
	})
}

func (b *bench) volume(name, size, class string, change ...func(*corev1.PersistentVolume)) {
	b.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: class, PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}}}}
	for _, f := range change {
		f(v)
	}
	bubble.Must(b.volumes.Create(b.Context(), v))(b.Bubble)
}

func (b *bench) claim(name, size string, class *string, change ...func(*corev1.PersistentVolumeClaim)) {
	b.Helper()
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}}}}
	for _, f := range change {
		f(c)
	}
	bubble.Must(b.claims.Create(b.Context(), c))(b.Bubble)
}

func (b *bench) wantClaim(name string, phase corev1.PersistentVolumeClaimPhase, volume string) *corev1.PersistentVolumeClaim {
	b.Helper()
	b.Settle()
	c := bubble.Must(b.claims.Get(b.Context(), "default", name))(b.Bubble)
	if c.Status.Phase != phase || c.Spec.VolumeName != volume {
		b.Errorf("claim %s is %s with volume %q, want %s with %q", name, c.Status.Phase, c.Spec.VolumeName, phase, volume)
	}
	return c
}

func (b *bench) wantVolume(name string, phase corev1.PersistentVolumePhase) *corev1.PersistentVolume {
	b.Helper()
	b.Settle()
	v := bubble.Must(b.volumes.Get(b.Context(), "", name))(b.Bubble)
	if v.Status.Phase != phase {
		b.Errorf("volume %s is %s (%s), want %s", name, v.Status.Phase, v.Status.Message, phase)
	}
	return v
}

func (b *bench) wantEvent(reason, message string) {
	b.Helper()
	b.Settle()
	all := bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b.Bubble)
	for _, e := range all {
		if e.Reason == reason && strings.Contains(e.Message, message) && e.Source.Component == "persistentvolume-controller" {
			return
		}
	}
	b.Errorf("no event %s %q", reason, message)
}

func (b *bench) class(name, provisioner string, wait bool, notes map[string]string) {
	b.Helper()
	mode := storagev1.VolumeBindingImmediate
	if wait {
		mode = storagev1.VolumeBindingWaitForFirstConsumer
	}
	bubble.Must(b.classes.Create(b.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: notes}, Provisioner: provisioner, VolumeBindingMode: &mode}))(b.Bubble)
}

func ptr[T any](v T) *T { return &v }

func TestTheSmallestVolumeThatFitsIsBound(t *testing.T) {
	run(t, func(b *bench) {
		b.volume("big", "10Gi", "s")
		b.volume("small", "1Gi", "s")
		b.volume("mid", "3Gi", "s")
		b.volume("other", "2Gi", "t")
		b.wantVolume("mid", corev1.VolumeAvailable)
		b.claim("c", "2Gi", ptr("s"))
		c := b.wantClaim("c", corev1.ClaimBound, "mid")
		if c.Annotations["pv.kubernetes.io/bind-completed"] != "yes" || c.Annotations["pv.kubernetes.io/bound-by-controller"] != "yes" || c.Status.Capacity.Storage().String() != "3Gi" {
			b.Errorf("got %v %v", c.Annotations, c.Status)
		}
		if v := b.wantVolume("mid", corev1.VolumeBound); v.Spec.ClaimRef.UID != c.UID || v.Annotations["pv.kubernetes.io/bound-by-controller"] != "yes" {
			b.Errorf("got %+v", v)
		}
		b.claim("second", "2Gi", ptr("s"))
		b.wantClaim("second", corev1.ClaimBound, "big")
	})
}

func TestClaimsWaitForWhatFits(t *testing.T) {
	run(t, func(b *bench) {
		b.claim("c", "5Gi", ptr("s"))
		b.claim("none", "5Gi", ptr(""))
		b.wantClaim("c", corev1.ClaimPending, "")
		b.wantEvent("ProvisioningFailed", `storageclass.storage.k8s.io "s" not found`)
		b.wantEvent("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
		b.volume("v", "5Gi", "s")
		b.wantClaim("c", corev1.ClaimBound, "v")
		b.wantClaim("none", corev1.ClaimPending, "")
	})
}

func TestReservedAndRequestedVolumes(t *testing.T) {
	run(t, func(b *bench) {
		b.volume("r", "5Gi", "s", func(v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "default", Name: "c"}
		})
		b.volume("free", "1Gi", "s")
		b.wantVolume("r", corev1.VolumeAvailable)
		b.claim("c", "1Gi", ptr("s"))
		b.wantClaim("c", corev1.ClaimBound, "r")
		named := func(name string) func(*corev1.PersistentVolumeClaim) {
			return func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = name }
		}
		b.claim("greedy", "9Gi", ptr("s"), named("free"))
		b.wantClaim("greedy", corev1.ClaimPending, "free")
		b.wantEvent("VolumeMismatch", `Cannot bind to requested volume "free": requested PV is too small`)
		b.claim("late", "1Gi", ptr("s"), named("r"))
		b.wantEvent("FailedBinding", `volume "r" already bound to a different claim.`)
		b.claim("own", "1Gi", ptr("s"), named("free"))
		if c := b.wantClaim("own", corev1.ClaimBound, "free"); c.Annotations["pv.kubernetes.io/bound-by-controller"] != "" {
			b.Errorf("the user bound it: %v", c.Annotations)
		}
	})
}

func TestReclaiming(t *testing.T) {
	run(t, func(b *bench) {
		for name, policy := range map[string]corev1.PersistentVolumeReclaimPolicy{"keep": corev1.PersistentVolumeReclaimRetain, "nfs": corev1.PersistentVolumeReclaimDelete, "csi": corev1.PersistentVolumeReclaimDelete} {
			b.volume(name, "1Gi", name, func(v *corev1.PersistentVolume) {
				v.Spec.PersistentVolumeReclaimPolicy = policy
				if name == "nfs" {
					v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/p"}}
				}
				if name == "csi" {
					v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": "example.com/csi"}
				}
			})
			b.claim(name, "1Gi", ptr(name))
		}
		for name, phase := range map[string]corev1.PersistentVolumePhase{"keep": corev1.VolumeReleased, "nfs": corev1.VolumeFailed, "csi": corev1.VolumeReleased} {
			b.wantClaim(name, corev1.ClaimBound, name)
			if err := b.claims.Delete(b.Context(), "default", name, metav1.DeleteOptions{}); err != nil {
				b.Fatal(err)
			}
			b.wantVolume(name, phase)
		}
		if v := b.wantVolume("nfs", corev1.VolumeFailed); v.Status.Message != `error getting deleter volume plugin for volume "nfs": no deletable volume plugin matched` {
			b.Errorf("message %q", v.Status.Message)
		}
		b.wantEvent("VolumeFailedDelete", "no deletable volume plugin matched")
	})
}

// A volume of a plug-in without a CSI driver is kept until what is behind it is
// deleted.
func TestVolumesOfPlugins(t *testing.T) {
	run(t, func(b *bench) {
		const own = "kubernetes.io/pv-controller"
		b.volume("v", "1Gi", "s", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": "kubernetes.io/x"}
		})
		b.claim("c", "1Gi", ptr("s"))
		b.wantClaim("c", corev1.ClaimBound, "v")
		if v := b.wantVolume("v", corev1.VolumeBound); !slices.Contains(v.Finalizers, own) {
			b.Errorf("finalizers %v", v.Finalizers)
		}
		if err := b.claims.Delete(b.Context(), "default", "c", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		if v := b.wantVolume("v", corev1.VolumeFailed); v.Status.Message != "no volume plugin matched name: kubernetes.io/x" {
			b.Errorf("message %q", v.Status.Message)
		}
		bubble.Must(b.volumes.MergePatch(b.Context(), "", "v", map[string]any{"spec": map[string]any{"persistentVolumeReclaimPolicy": "Retain"}}, ""))(b.Bubble)
		if v := b.wantVolume("v", corev1.VolumeFailed); slices.Contains(v.Finalizers, own) {
			b.Errorf("retained, but has %v", v.Finalizers)
		}
	})
}

func TestALostVolume(t *testing.T) {
	run(t, func(b *bench) {
		b.volume("v", "1Gi", "s")
		b.claim("c", "1Gi", ptr("s"))
		b.wantClaim("c", corev1.ClaimBound, "v")
		if err := b.volumes.Delete(b.Context(), "", "v", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.wantClaim("c", corev1.ClaimLost, "v")
		b.wantEvent("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	})
}

func TestProvisioners(t *testing.T) {
	run(t, func(b *bench) {
		b.claim("early", "1Gi", nil)
		b.wantClaim("early", corev1.ClaimPending, "")
		b.class("now", "example.com/p", false, map[string]string{"storageclass.kubernetes.io/is-default-class": "true"})
		b.class("later", "example.com/p", true, nil)
		c := b.wantClaim("early", corev1.ClaimPending, "")
		if *c.Spec.StorageClassName != "now" || c.Annotations["volume.kubernetes.io/storage-provisioner"] != "example.com/p" || c.Annotations["volume.beta.kubernetes.io/storage-provisioner"] != "example.com/p" {
			b.Errorf("the default class came late: %v %v", *c.Spec.StorageClassName, c.Annotations)
		}
		b.wantEvent("ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner 'example.com/p'")
		// The provisioner makes the volume for the claim.
		b.volume("pvc-1", "1Gi", "now", func(v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "default", Name: "early", UID: c.UID}
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": "example.com/p"}
		})
		b.wantClaim("early", corev1.ClaimBound, "pvc-1")
		b.volume("static", "1Gi", "later")
		b.claim("waits", "1Gi", ptr("later"))
		b.wantClaim("waits", corev1.ClaimPending, "")
		b.wantEvent("WaitForFirstConsumer", "waiting for first consumer to be created before binding")
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
			SchedulerName: "none", Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "waits"}}}},
		}}
		bubble.Must(client.For[*corev1.Pod](b.API).Create(b.Context(), pod))(b.Bubble)
		time.Sleep(16 * time.Second) // in the bubble
		b.wantEvent("WaitForPodScheduled", "waiting for pod p to be scheduled")
		bubble.Must(b.claims.MergePatch(b.Context(), "default", "waits", map[string]any{"metadata": map[string]any{"annotations": map[string]string{"volume.kubernetes.io/selected-node": "n"}}}, ""))(b.Bubble)
		if c := b.wantClaim("waits", corev1.ClaimPending, ""); c.Annotations["volume.kubernetes.io/storage-provisioner"] != "example.com/p" {
			b.Errorf("a node was selected: %v", c.Annotations)
		}
	})
}

// Where nothing is provisioned, nobody is asked to and nothing is told.
func TestNoProvisioning(t *testing.T) {
	runWith(t, volumebinder.Config{NoProvisioning: true}, func(b *bench) {
		bubble.Must(b.classes.Create(b.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Provisioner: "example.com/p"}))(b.Bubble)
		b.claim("c", "1Gi", ptr("s"))
		if claim := b.wantClaim("c", corev1.ClaimPending, ""); len(claim.Annotations) != 0 {
			b.Errorf("annotations %v", claim.Annotations)
		}
		if events := bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b.Bubble); len(events) != 0 {
			b.Errorf("events %v", events)
		}
	})
}

// The pod that empties a volume has the deadline of the volume's size, and is one
// that the administrator wrote, if there is such.
func TestRecyclers(t *testing.T) {
	template := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", GenerateName: "x-", Labels: map[string]string{"l": "v"}}, Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, Volumes: []corev1.Volume{{Name: "mine"}}, Containers: []corev1.Container{{Name: "c", Image: "scrub", VolumeMounts: []corev1.VolumeMount{{Name: "mine", MountPath: "/v"}}}}}}
	for name, c := range map[string]struct {
		config                 volumebinder.Config
		size, namespace, image string
		deadline               int64
	}{
		"usual, small": {volumebinder.Config{}, "1Gi", "default", "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6", 60},
		"usual, large": {volumebinder.Config{}, "10Gi", "default", "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6", 300},
		"of one's own": {volumebinder.Config{HostPath: volumebinder.Recycling{Template: template, Minimum: 7, PerGi: 1}}, "1Gi", "kube-system", "scrub", 7},
	} {
		t.Run(name, func(t *testing.T) {
			runWith(t, c.config, func(b *bench) {
				b.volume("v", c.size, "s", func(v *corev1.PersistentVolume) {
					v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRecycle
				})
				b.claim("c", "1Gi", ptr("s"))
				b.wantClaim("c", corev1.ClaimBound, "v")
				if err := b.claims.Delete(b.Context(), "default", "c", metav1.DeleteOptions{}); err != nil {
					b.Fatal(err)
				}
				b.Settle()
				pods := client.For[*corev1.Pod](b.API)
				pod := bubble.Must(pods.Get(b.Context(), c.namespace, "recycler-for-v"))(b.Bubble).DeepCopy()
				if s := pod.Spec; *s.ActiveDeadlineSeconds != c.deadline || s.Containers[0].Image != c.image || s.Volumes[0].HostPath == nil || s.Volumes[0].HostPath.Path != "/x" {
					b.Errorf("the pod is %+v", s)
				}
				pod.Status.Phase = corev1.PodSucceeded
				bubble.Must(pods.UpdateStatus(b.Context(), pod))(b.Bubble)
				b.wantVolume("v", corev1.VolumeAvailable)
			})
		})
	}
}

// The events of the pod that empties a volume are the volume's, too, and a failure
// is told as what it is.
func TestRecyclingFails(t *testing.T) {
	run(t, func(b *bench) {
		b.volume("v", "1Gi", "s", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRecycle
		})
		b.claim("c", "1Gi", ptr("s"))
		b.wantClaim("c", corev1.ClaimBound, "v")
		if err := b.claims.Delete(b.Context(), "default", "c", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		pods, events := client.For[*corev1.Pod](b.API), client.For[*corev1.Event](b.API)
		pod := bubble.Must(pods.Get(b.Context(), "default", "recycler-for-v"))(b.Bubble).DeepCopy()
		bubble.Must(events.Create(b.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, Type: corev1.EventTypeWarning, Reason: "FailedScheduling", Message: "no nodes",
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: pod.Name, UID: pod.UID}}))(b.Bubble)
		b.Settle()
		pod.Status.Phase = corev1.PodFailed
		bubble.Must(pods.UpdateStatus(b.Context(), pod))(b.Bubble)
		const why = "Recycle failed: failed to recycle volume: pod failed, pod.Status.Message unknown"
		if v := b.wantVolume("v", corev1.VolumeFailed); v.Status.Message != why {
			b.Errorf("message %q", v.Status.Message)
		}
		for reason, message := range map[string]string{"RecyclerPod": "Recycler pod: no nodes", "VolumeFailedRecycle": why} {
			if !slices.ContainsFunc(bubble.Must(events.List(b.Context(), "default", metav1.ListOptions{}))(b.Bubble), func(e *corev1.Event) bool {
				return e.InvolvedObject.Kind == "PersistentVolume" && e.Type == corev1.EventTypeWarning && e.Reason == reason && e.Message == message
			}) {
				b.Errorf("no event %s: %s", reason, message)
			}
		}
	})
}
