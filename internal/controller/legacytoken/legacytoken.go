// SPDX-License-Identifier: Apache-2.0

// Package legacytoken makes tokens that were made for ServiceAccounts, are kept
// in Secrets and are used by nobody invalid, and deletes them when nobody has
// missed them. The controller manager runs it, once a day. The API server notes
// the use of such tokens and refuses the invalid ones.
package legacytoken

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
)

const (
	tracking     = "kube-apiserver-legacy-service-account-token-tracking"
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"

	interval = 24 * time.Hour
	// DefaultPeriod is how long a token is not used before it is made invalid,
	// and then invalid before it is deleted.
	DefaultPeriod = 365 * 24 * time.Hour
)

// Controller looks for tokens.
type Controller struct {
	maps     client.Typed[*corev1.ConfigMap]
	secrets  client.Typed[*corev1.Secret]
	accounts client.Typed[*corev1.ServiceAccount]
	pods     client.Typed[*corev1.Pod]
	period   time.Duration
	log      *slog.Logger
}

// New returns the controller. A period of zero is DefaultPeriod.
func New(api client.Interface, period time.Duration, log *slog.Logger) *Controller {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if period == 0 {
		period = DefaultPeriod
	}
	return &Controller{period: period, log: log, maps: client.For[*corev1.ConfigMap](api), accounts: client.For[*corev1.ServiceAccount](api), pods: client.For[*corev1.Pod](api),
		secrets: client.For[*corev1.Secret](api).With(client.InformerOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})}
}

// Run looks once a day until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.secrets.Informer(), c.accounts.Informer(), c.pods.Informer()) {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := c.look(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("unused tokens of service accounts are not looked for, this is tried again tomorrow", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look judges all tokens; one that cannot be written does not keep the others.
func (c *Controller) look(ctx context.Context) error {
	now := time.Now().UTC()
	since, err := c.trackedSince(ctx)
	if err != nil || now.Before(since.Add(c.period)) {
		return err
	}
	mounted := map[string]map[string]bool{} // by namespace
	var errs []error
	for _, s := range c.secrets.CachedList("", labels.Everything()) {
		if !c.unused(s, now) {
			continue
		}
		if mounted[s.Namespace] == nil {
			mounted[s.Namespace] = c.mounted(s.Namespace)
		}
		if mounted[s.Namespace][s.Name] {
			continue
		}
		if err := c.retire(ctx, s, now); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("%s/%s: %w", s.Namespace, s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// trackedSince is the first whole day whose uses are noted.
func (c *Controller) trackedSince(ctx context.Context) (time.Time, error) {
	m, err := c.maps.Get(ctx, metav1.NamespaceSystem, tracking)
	if err != nil {
		return time.Time{}, err
	}
	since, err := time.Parse(time.DateOnly, m.Data["since"])
	if err != nil {
		return time.Time{}, fmt.Errorf("the ConfigMap %s: since: %w", tracking, err)
	}
	return since.AddDate(0, 0, 1), nil
}

// unused says whether a token was made for its account, long ago, and not used
// for long.
func (c *Controller) unused(s *corev1.Secret, now time.Time) bool {
	if s.DeletionTimestamp != nil || !s.CreationTimestamp.Time.Before(now.Add(-c.period)) {
		return false
	}
	if used, ok := s.Labels[lastUsed]; ok {
		if _, err := time.Parse(time.DateOnly, used); err != nil || used >= c.before(now) {
			return false
		}
	}
	account, err := c.accounts.Cached(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])
	if uid := s.Annotations[corev1.ServiceAccountUIDKey]; err != nil || uid != "" && uid != string(account.UID) {
		return false
	}
	// Tokens that somebody asked for are not on the account's list.
	return slices.ContainsFunc(account.Secrets, func(ref corev1.ObjectReference) bool { return ref.Name == s.Name })
}

// before is the day whose uses are the first that count.
func (c *Controller) before(now time.Time) string { return now.Add(-c.period).Format(time.DateOnly) }

// retire makes a token invalid, or deletes one that has been for long.
func (c *Controller) retire(ctx context.Context, s *corev1.Secret, now time.Time) error {
	since := s.Labels[invalidSince]
	if _, err := time.Parse(time.DateOnly, since); err != nil {
		c.log.Info("a token of a service account is not used, it is made invalid", "namespace", s.Namespace, "secret", s.Name)
		_, err := c.secrets.MergePatch(ctx, s.Namespace, s.Name, map[string]any{"metadata": map[string]any{
			"uid": s.UID, "labels": map[string]string{invalidSince: now.Format(time.DateOnly)}}}, "")
		return err
	}
	if since >= c.before(now) {
		return nil
	}
	c.log.Info("an invalid token of a service account is deleted", "namespace", s.Namespace, "secret", s.Name, "since", since)
	return c.secrets.Delete(ctx, s.Namespace, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &s.ResourceVersion}})
}

// mounted returns the names of the Secrets that a namespace's pods read.
func (c *Controller) mounted(namespace string) map[string]bool {
	names := map[string]bool{}
	for _, pod := range c.pods.CachedList(namespace, labels.Everything()) {
		for _, ref := range pod.Spec.ImagePullSecrets {
			names[ref.Name] = true
		}
		for _, v := range pod.Spec.Volumes {
			volume(names, &v)
		}
		containers(names, pod.Spec.InitContainers)
		containers(names, pod.Spec.Containers)
		for _, e := range pod.Spec.EphemeralContainers {
			containers(names, []corev1.Container{corev1.Container(e.EphemeralContainerCommon)})
		}
	}
	return names
}

func volume(names map[string]bool, v *corev1.Volume) {
	if v.Secret != nil {
		names[v.Secret.SecretName] = true
	}
	if v.Projected != nil {
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				names[source.Secret.Name] = true
			}
		}
	}
	if v.CSI != nil && v.CSI.NodePublishSecretRef != nil {
		names[v.CSI.NodePublishSecretRef.Name] = true
	}
}

func containers(names map[string]bool, list []corev1.Container) {
	for _, ctr := range list {
		for _, from := range ctr.EnvFrom {
			if from.SecretRef != nil {
				names[from.SecretRef.Name] = true
			}
		}
		for _, env := range ctr.Env {
			if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
				names[env.ValueFrom.SecretKeyRef.Name] = true
			}
		}
	}
}
