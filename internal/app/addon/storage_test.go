// SPDX-License-Identifier: Apache-2.0

package addon_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/app/addon"
	"kaji/internal/client"
	"kaji/internal/provisioner"
	"kaji/kajitest"
)

func withStorage(t *testing.T) *kajitest.Cluster {
	cluster := kajitest.Start(t)
	off := slices.DeleteFunc(addon.Names(), func(name string) bool { return name == "storage" })
	if err := addon.Apply(t.Context(), cluster.Client(), addon.Values{}, off, ""); err != nil {
		t.Fatal(err)
	}
	return cluster
}

func TestDefaultClass(t *testing.T) {
	class, err := client.For[*storagev1.StorageClass](withStorage(t).Client()).Get(t.Context(), "", "standard")
	if err != nil {
		t.Fatal(err)
	}
	if class.Provisioner != provisioner.Name || class.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" ||
		*class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer || !*class.AllowVolumeExpansion {
		t.Errorf("the class is %+v", class)
	}
}

// A node writes volumes of its own directories only.
func TestNodeVolumes(t *testing.T) {
	cluster := withStorage(t)
	dir := corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/d"}}
	host := corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
	create := func(who user.Info, source corev1.PersistentVolumeSource, nodes ...string) error {
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: source, NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{}}}}
		for _, n := range nodes {
			term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n}}}}
			v.Spec.NodeAffinity.Required.NodeSelectorTerms = append(v.Spec.NodeAffinity.Required.NodeSelectorTerms, term)
		}
		volumes := client.For[*corev1.PersistentVolume](cluster.Client())
		_, err := cluster.As(who).Create(t.Context(), volumes.Resource(""), "", v, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
	for _, refused := range []error{create(node, host, "n1"), create(node, dir, "n2"), create(node, dir, "n1", "n2")} {
		if refused == nil || !strings.Contains(refused.Error(), "a node may only write volumes of its own directories") {
			t.Errorf("got %v", refused)
		}
	}
	if err := create(node, dir, "n1"); err != nil {
		t.Error(err)
	}
	if err := create(&user.DefaultInfo{Name: "admin", Groups: []string{"system:masters"}}, host, "n2"); err != nil {
		t.Error(err)
	}
}
