// SPDX-License-Identifier: Apache-2.0

// Package serviceaccount is the admission plug-in ServiceAccount: every pod acts
// as an account of its namespace, the one called default when it names none. Its
// containers get a token of the account, the cluster's authority and the
// namespace mounted, and the pod the account's image pull secrets. An account
// may restrict which Secrets its pods name.
//
// The API server's admission chain calls it. Mirror pods stand for what a
// kubelet runs already: they are never changed, and may name no account.
package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	utilrand "k8s.io/apimachinery/pkg/util/rand"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "ServiceAccount"

const (
	account    = "default"
	volumeName = "kube-api-access-"
	mountPath  = "/var/run/secrets/kubernetes.io/serviceaccount"
	enforce    = "kubernetes.io/enforce-mountable-secrets"

	// tokenSeconds is an hour and what makes kubelets and clients tell such a
	// token from one that somebody asked an hour for.
	tokenSeconds = 3607
	rootCA       = "kube-root-ca.crt"

	// The account called default is made by a controller after its namespace:
	// a pod waits for it, tries times this long.
	tries = 10
	pause = 100 * time.Millisecond
)

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var (
	_ admission.Mutator   = (*Plugin)(nil)
	_ admission.Validator = (*Plugin)(nil)
)

// New returns the plug-in; it reads accounts from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create || !a.Is("", "pods", "") {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || mirror(pod) {
		return p.Validate(ctx, a)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = account, account
	}
	sa, err := p.account(ctx, a, pod)
	if err != nil {
		return err
	}
	if automount(sa, pod) {
		mount(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return p.judge(a, pod, sa)
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	ephemeral := a.Operation == admission.Update && a.Is("", "pods", "ephemeralcontainers")
	if !ephemeral && (a.Operation != admission.Create || !a.Is("", "pods", "")) {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	if !ephemeral && mirror(pod) {
		return judgeMirror(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		return a.Forbidden(fmt.Errorf("no service account specified for pod %s/%s", a.Namespace, pod.Name))
	}
	sa, err := p.account(ctx, a, pod)
	if err != nil {
		return err
	}
	if ephemeral {
		return p.judgeEphemeral(a, pod, sa)
	}
	return p.judge(a, pod, sa)
}

func mirror(pod *corev1.Pod) bool {
	_, is := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return is
}

// judgeMirror refuses mirror pods that would get at what the API holds.
func judgeMirror(a *admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return a.Forbidden(errors.New("a mirror pod may not reference service accounts"))
	}
	if admission.References(pod, admission.Secret) {
		return a.Forbidden(errors.New("a mirror pod may not reference secrets"))
	}
	for i := range pod.Spec.Volumes {
		if from := pod.Spec.Volumes[i].Projected; from != nil {
			for j := range from.Sources {
				if from.Sources[j].ServiceAccountToken != nil {
					return a.Forbidden(errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
				}
			}
		}
	}
	return nil
}

// account returns the pod's account; it is shared.
func (p *Plugin) account(ctx context.Context, a *admission.Attributes, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	name := pod.Spec.ServiceAccountName
	if wrong := path.IsValidPathSegmentName(name); len(wrong) > 0 {
		return nil, a.Forbidden(fmt.Errorf("error looking up service account %s/%s: invalid resource name %q: %v", a.Namespace, name, name, wrong))
	}
	for try := 1; ; try++ {
		sa, found, err := admission.Find[*corev1.ServiceAccount](ctx, p.read, corev1.SchemeGroupVersion.WithKind("ServiceAccount"), a.Namespace, name)
		switch {
		case err != nil:
			return nil, a.Forbidden(fmt.Errorf("error looking up service account %s/%s: %v", a.Namespace, name, err))
		case found:
			return sa, nil
		case name != account || try == tries:
			return nil, a.Forbidden(fmt.Errorf("error looking up service account %s/%s: serviceaccount %q not found", a.Namespace, name, name))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// automount says whether the pod wants a token; its own word goes first.
func automount(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case sa.AutomountServiceAccountToken != nil:
		return *sa.AutomountServiceAccountToken
	}
	return true
}

// mount gives the containers a token, where nothing is mounted in its place.
func mount(pod *corev1.Pod) {
	var own string
	for i := range pod.Spec.Volumes {
		if strings.HasPrefix(pod.Spec.Volumes[i].Name, volumeName) {
			own = pod.Spec.Volumes[i].Name
			break
		}
	}
	name := own
	if name == "" {
		name = volumeName + utilrand.String(5)
	}
	used := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == mountPath }) {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: mountPath})
			used = true
		}
	}
	if used && own == "" {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: access()}})
	}
}

// access is what a pod needs to call the API.
func access() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: new(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(tokenSeconds))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCA},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}

// restricts says whether pods of the account may only name its own Secrets.
func restricts(sa *corev1.ServiceAccount) bool {
	yes, err := strconv.ParseBool(sa.Annotations[enforce])
	return err == nil && yes
}
