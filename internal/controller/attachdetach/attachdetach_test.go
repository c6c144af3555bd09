// SPDX-License-Identifier: Apache-2.0

package attachdetach_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/attachdetach"
	"kaji/internal/controller/bubble"
)

const handle = "kubernetes.io/csi/disk.example.com^h"

// bench is a cluster with a volume, its claim "data", and the nodes a and b. The
// test is the driver's attacher.
type bench struct {
	*bubble.Bubble
	pods        client.Typed[*corev1.Pod]
	nodes       client.Typed[*corev1.Node]
	attachments client.Typed[*storagev1.VolumeAttachment]
}

func run(t *testing.T, test func(b *bench)) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{attachdetach.New(attachdetach.Config{Client: api})}
	}
	bubble.RunAs(t, "attachdetach-controller", start, func(bb *bubble.Bubble) {
		b := &bench{bb, client.For[*corev1.Pod](bb.API), client.For[*corev1.Node](bb.API), client.For[*storagev1.VolumeAttachment](bb.API)}
		for _, name := range []string{"a", "b"} {
			n := bubble.Must(b.nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name,
				Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}))(bb)
			b.ready(n.Name, corev1.ConditionTrue)
		}
		storage := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		rwo := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		claims, volumes := client.For[*corev1.PersistentVolumeClaim](bb.API), client.For[*corev1.PersistentVolume](bb.API)
		claim := bubble.Must(claims.Create(b.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: rwo, VolumeName: "pv", Resources: corev1.VolumeResourceRequirements{Requests: storage}}}))(bb)
		bubble.Must(volumes.Create(b.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			Capacity: storage, AccessModes: rwo, ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "default", Name: "data", UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.example.com", VolumeHandle: "h"}}}}))(bb)
		claim = claim.DeepCopy()
		claim.Status.Phase = corev1.ClaimBound
		bubble.Must(claims.UpdateStatus(b.Context(), claim))(bb)
		test(b)
	})
}

func (b *bench) status(node string, status map[string]any) {
	b.Helper()
	bubble.Must(b.nodes.MergePatch(b.Context(), "", node, map[string]any{"status": status}, "status"))(b.Bubble)
}

func (b *bench) ready(node string, status corev1.ConditionStatus) {
	b.Helper()
	b.status(node, map[string]any{"conditions": []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}})
}

func (b *bench) pod(name, node string) {
	b.Helper()
	bubble.Must(b.pods.Create(b.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node,
		Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}))(b.Bubble)
	b.Settle()
}

func (b *bench) remove(pod string) {
	b.Helper()
	zero := int64(0)
	if err := b.pods.Delete(b.Context(), "default", pod, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		b.Fatal(err)
	}
	b.Settle()
}

// attachment returns the volume's attachment to a node, nil if there is none.
func (b *bench) attachment(node string) *storagev1.VolumeAttachment {
	b.Helper()
	for _, a := range bubble.Must(b.attachments.List(b.Context(), "", metav1.ListOptions{}))(b.Bubble) {
		if a.Spec.NodeName == node {
			return a
		}
	}
	return nil
}

// attach says as the attacher how it went.
func (b *bench) attach(node, failure string) {
	b.Helper()
	a := b.attachment(node).DeepCopy()
	a.Status = storagev1.VolumeAttachmentStatus{Attached: failure == ""}
	if failure != "" {
		a.Status.AttachError = &storagev1.VolumeError{Time: metav1.Now(), Message: failure}
	}
	bubble.Must(b.attachments.UpdateStatus(b.Context(), a))(b.Bubble)
	b.Settle()
}

func (b *bench) attached(node string) []corev1.AttachedVolume {
	b.Helper()
	return bubble.Must(b.nodes.Get(b.Context(), "", node))(b.Bubble).Status.VolumesAttached
}

// event says whether a pod has an event.
func (b *bench) event(pod, reason, message string) bool {
	b.Helper()
	for _, e := range bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b.Bubble) {
		if e.InvolvedObject.Name == pod && e.Reason == reason && e.Message == message && e.Count == 1 && e.Source.Component == "attachdetach-controller" {
			return true
		}
	}
	return false
}

func TestAVolumeFollowsItsPods(t *testing.T) {
	run(t, func(b *bench) {
		b.pod("p", "a")
		a := b.attachment("a")
		if a == nil || a.Spec.Attacher != "disk.example.com" || *a.Spec.Source.PersistentVolumeName != "pv" || !strings.HasPrefix(a.Name, "csi-") || len(a.Name) != 68 {
			b.Fatalf("attachment %+v", a)
		}
		if got := b.attached("a"); len(got) > 0 {
			b.Errorf("not attached, and the node says %v", got)
		}
		b.attach("a", "no such disk")
		if !b.event("p", "FailedAttachVolume", `AttachVolume.Attach failed for volume "pv" : no such disk`) {
			b.Error("the pod is not told of the failure")
		}
		b.attach("a", "")
		if got := b.attached("a"); len(got) != 1 || got[0].Name != handle || got[0].DevicePath != "" {
			b.Errorf("attached, and the node says %v", got)
		}
		if !b.event("p", "SuccessfulAttachVolume", `AttachVolume.Attach succeeded for volume "pv" `) {
			b.Error("the pod is not told that it is attached")
		}
		b.status("a", map[string]any{"volumesInUse": []string{handle}})
		b.pod("q", "b")
		if b.attachment("b") != nil || !b.event("q", "FailedAttachVolume", `Waiting for detach for volume "pv" Volume is already used by pod(s) p`) {
			b.Error("a volume for one node is attached to a second")
		}
		b.remove("p")
		b.Wait(20 * time.Minute)
		if b.attachment("a") == nil || len(b.attached("a")) != 1 {
			b.Error("a volume in use is detached from a ready node")
		}
		b.status("a", map[string]any{"volumesInUse": nil})
		b.Settle()
		if b.attachment("a") != nil || len(b.attached("a")) != 0 {
			b.Error("a volume that nobody uses stays attached")
		}
		if b.attachment("b") == nil {
			b.Error("the pod that waited does not get its volume")
		}
	})
}

func TestADeadNodeLosesItsVolumes(t *testing.T) {
	for name, taint := range map[string]bool{"after a while": false, "when it is said to be out of service": true} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.pod("p", "a")
				b.attach("a", "")
				b.status("a", map[string]any{"volumesInUse": []string{handle}})
				b.ready("a", corev1.ConditionUnknown)
				b.remove("p")
				b.Wait(5 * time.Minute)
				if b.attachment("a") == nil {
					b.Fatal("the volume is detached too early")
				}
				if taint {
					bubble.Must(b.nodes.MergePatch(b.Context(), "", "a", map[string]any{"spec": map[string]any{"taints": []corev1.Taint{
						{Key: "node.kubernetes.io/out-of-service", Effect: corev1.TaintEffectNoExecute}}}}, ""))(b.Bubble)
				} else {
					b.Wait(time.Minute)
				}
				b.Settle()
				if b.attachment("a") != nil || len(b.attached("a")) != 0 {
					b.Error("the volume stays attached")
				}
			})
		})
	}
}

func TestDriversThatAttachNothing(t *testing.T) {
	run(t, func(b *bench) {
		no := false
		bubble.Must(client.For[*storagev1.CSIDriver](b.API).Create(b.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "disk.example.com"}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no}}))(b.Bubble)
		b.pod("p", "a")
		if a := b.attachment("a"); a != nil {
			b.Errorf("attachment %v", a)
		}
	})
}
