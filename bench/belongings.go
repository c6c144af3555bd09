// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// What pods of some shapes own: volumes that are bound already, and claims of
// devices that the scheduler allocates.

func claimName(i int) string { return fmt.Sprint("claim-", i) }

func (r *schedulerRun) volumeName(i int) string { return fmt.Sprint(r.ns, "-", i) }

// makeVolume makes a volume and its claim, bound to each other as a controller
// would have left them.
func makeVolume(ctx context.Context, r *schedulerRun, i int) error {
	size := corev1.ResourceList{"storage": resource.MustParse("1Gi")}
	once := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	bound := map[string]string{"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
	pv := &corev1.PersistentVolume{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		ObjectMeta: metav1.ObjectMeta{Name: r.volumeName(i), Annotations: bound},
		Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: once, ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: r.ns, Name: claimName(i)},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example", VolumeHandle: r.volumeName(i)}}},
	}
	if err := r.c.post(ctx, "/api/v1/persistentvolumes", pv); err != nil {
		return err
	}
	return r.c.post(ctx, "/api/v1/namespaces/"+r.ns+"/persistentvolumeclaims", &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: claimName(i), Annotations: bound},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: once, StorageClassName: ptr.To(""), VolumeName: r.volumeName(i),
			Resources: corev1.VolumeResourceRequirements{Requests: size}},
	})
}

func removeVolume(ctx context.Context, r *schedulerRun, i int) {
	_, _ = r.c.do(ctx, http.MethodDelete, "/api/v1/namespaces/"+r.ns+"/persistentvolumeclaims/"+claimName(i), "", asJSON, nil)
	_, _ = r.c.do(ctx, http.MethodDelete, "/api/v1/persistentvolumes/"+r.volumeName(i), "", asJSON, nil)
}

// devicesPerNode is how many pods of a node can have one.
const devicesPerNode = 16

const driver = "bench.example"

func makeDeviceClass(ctx context.Context, r *schedulerRun) error {
	return r.c.post(ctx, "/apis/resource.k8s.io/v1/deviceclasses", &resourcev1.DeviceClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: "resource.k8s.io/v1", Kind: "DeviceClass"},
		ObjectMeta: metav1.ObjectMeta{Name: r.ns},
		Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{
			Expression: `device.driver == "` + driver + `"`}}}},
	})
}

func makeDevices(ctx context.Context, r *schedulerRun, i int) error {
	devices := make([]resourcev1.Device, devicesPerNode)
	for d := range devices {
		devices[d].Name = fmt.Sprint("device-", d)
	}
	return r.c.post(ctx, "/apis/resource.k8s.io/v1/resourceslices", &resourcev1.ResourceSlice{
		TypeMeta:   metav1.TypeMeta{APIVersion: "resource.k8s.io/v1", Kind: "ResourceSlice"},
		ObjectMeta: metav1.ObjectMeta{Name: r.volumeName(i)},
		Spec: resourcev1.ResourceSliceSpec{Driver: driver, NodeName: ptr.To(nodeName(i)), Devices: devices,
			Pool: resourcev1.ResourcePool{Name: nodeName(i), ResourceSliceCount: 1}},
	})
}

func makeClaim(ctx context.Context, r *schedulerRun, i int) error {
	return r.c.post(ctx, "/apis/resource.k8s.io/v1/namespaces/"+r.ns+"/resourceclaims", &resourcev1.ResourceClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "resource.k8s.io/v1", Kind: "ResourceClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: claimName(i)},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "d",
			Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: r.ns, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}},
	})
}

func removeDevices(ctx context.Context, r *schedulerRun, i int) {
	_, _ = r.c.do(ctx, http.MethodDelete, "/apis/resource.k8s.io/v1/namespaces/"+r.ns+"/resourceclaims/"+claimName(i), "", asJSON, nil)
	if i < r.Nodes {
		_, _ = r.c.do(ctx, http.MethodDelete, "/apis/resource.k8s.io/v1/resourceslices/"+r.volumeName(i), "", asJSON, nil)
	}
	if i == 0 {
		_, _ = r.c.do(ctx, http.MethodDelete, "/apis/resource.k8s.io/v1/deviceclasses/"+r.ns, "", asJSON, nil)
	}
}
