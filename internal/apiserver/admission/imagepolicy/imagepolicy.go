// SPDX-License-Identifier: Apache-2.0

// Package imagepolicy is the admission plug-in ImagePolicyWebhook: a server
// outside is asked whether the images of a pod may run.
//
// The API server's admission chain calls it. Answers are kept for a time;
// nothing is dialled before the first pod.
package imagepolicy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/api/imagepolicy/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled and configured by.
const Name = "ImagePolicyWebhook"

const (
	auditPrefix = "imagepolicywebhook.image-policy.k8s.io/"
	// The annotation of pods that were let in because nobody answered.
	failedOpen = "alpha.image-policy.k8s.io/failed-open"
	// kept is how many answers are remembered.
	kept = 1024
)

// configuration is read from YAML or JSON; its times have units of their own.
type configuration struct {
	ImagePolicy struct {
		KubeConfigFile string `json:"kubeConfigFile"`
		AllowTTL       int64  `json:"allowTTL"`     // seconds
		DenyTTL        int64  `json:"denyTTL"`      // seconds
		RetryBackoff   int64  `json:"retryBackoff"` // milliseconds
		DefaultAllow   bool   `json:"defaultAllow"`
	} `json:"imagePolicy"`
}

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	webhook           *webhook.GenericWebhook
	answers           *cache.LRUExpireCache
	allowTTL, denyTTL time.Duration
	open              bool // lets pods in when nobody answers
}

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in.
func New(given []byte) (*Plugin, error) {
	if len(given) == 0 {
		return nil, errors.New("no config specified")
	}
	var c configuration
	if err := yaml.Unmarshal(given, &c); err != nil {
		return nil, err
	}
	is := &c.ImagePolicy
	backoff, err := interval(is.RetryBackoff, time.Millisecond, time.Nanosecond, 5*time.Minute, 500*time.Millisecond)
	if err != nil {
		return nil, err
	}
	p := &Plugin{answers: cache.NewLRUExpireCache(kept), open: is.DefaultAllow}
	if p.allowTTL, err = interval(is.AllowTTL, time.Second, time.Second, 30*time.Minute, 5*time.Minute); err != nil {
		return nil, err
	}
	if p.denyTTL, err = interval(is.DenyTTL, time.Second, time.Second, 30*time.Minute, 30*time.Second); err != nil {
		return nil, err
	}
	config, err := webhook.LoadKubeconfig(is.KubeConfigFile, nil)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	p.webhook, err = webhook.NewGenericWebhook(scheme, serializer.NewCodecFactory(scheme), config,
		[]schema.GroupVersion{v1alpha1.SchemeGroupVersion}, webhook.DefaultRetryBackoffWithInitialDelay(backoff))
	return p, err
}

// interval reads a time: 0 is the default and -1 none at all.
func interval(value int64, unit, least, most, standard time.Duration) (time.Duration, error) {
	switch value {
	case -1:
		return 0, nil
	case 0:
		return standard, nil
	}
	d := time.Duration(value) * unit
	if value < 0 || value > int64(most/unit) || d < least {
		return 0, fmt.Errorf("valid value is between %v and %v, got %v", least, most, d)
	}
	return d, nil
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	ephemeral := a.Is("", "pods", "ephemeralcontainers")
	if !ephemeral && !a.Is("", "pods", "") {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	review := &v1alpha1.ImageReview{Spec: v1alpha1.ImageReviewSpec{
		Containers: images(pod, ephemeral), Annotations: map[string]string{}, Namespace: a.Namespace,
	}}
	for key, value := range pod.Annotations {
		if strings.Contains(key, ".image-policy.k8s.io/") {
			review.Spec.Annotations[key] = value
		}
	}
	status, err := p.ask(ctx, review)
	switch {
	case err != nil && p.open:
		audit.AddAuditAnnotation(ctx, auditPrefix+"failed-open", "true")
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[failedOpen] = "true"
		return nil
	case err != nil:
		return a.Forbidden(err)
	}
	for key, value := range status.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, auditPrefix+key, value)
	}
	switch {
	case status.Allowed:
		return nil
	case status.Reason != "":
		return a.Forbidden(fmt.Errorf("image policy webhook backend denied one or more images: %s", status.Reason))
	}
	return a.Forbidden(errors.New("one or more images rejected by webhook backend"))
}

func images(pod *corev1.Pod, ephemeral bool) (list []v1alpha1.ImageReviewContainerSpec) {
	if ephemeral {
		for i := range pod.Spec.EphemeralContainers {
			list = append(list, v1alpha1.ImageReviewContainerSpec{Image: pod.Spec.EphemeralContainers[i].Image})
		}
		return list
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			list = append(list, v1alpha1.ImageReviewContainerSpec{Image: containers[i].Image})
		}
	}
	return list
}

// ask returns the answer to a review, a remembered one when it is still good.
func (p *Plugin) ask(ctx context.Context, review *v1alpha1.ImageReview) (v1alpha1.ImageReviewStatus, error) {
	question, err := json.Marshal(review.Spec)
	if err != nil {
		return review.Status, err
	}
	if known, ok := p.answers.Get(string(question)); ok {
		return known.(v1alpha1.ImageReviewStatus), nil
	}
	result := p.webhook.WithExponentialBackoff(ctx, func() rest.Result {
		return p.webhook.RestClient.Post().Body(review).Do(ctx)
	})
	if err := result.Error(); err != nil {
		return review.Status, err
	}
	var code int
	if result.StatusCode(&code); code < 200 || code >= 300 {
		return review.Status, fmt.Errorf("Error contacting webhook: %d", code)
	}
	if err := result.Into(review); err != nil {
		return review.Status, err
	}
	ttl := p.denyTTL
	if review.Status.Allowed {
		ttl = p.allowTTL
	}
	p.answers.Add(string(question), review.Status, ttl)
	return review.Status, nil
}
