// SPDX-License-Identifier: Apache-2.0

// Package serviceaccounttoken fills Secrets of the type service-account-token
// with a token that does not expire, the cluster's authority and the namespace,
// and deletes those of accounts that are gone. The controller manager runs it.
// Pods get tokens that expire from their node, not from here.
package serviceaccounttoken

import (
	"bytes"
	"context"
	"crypto"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

const (
	index   = "serviceaccounttoken.account"
	workers = 5
)

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// Key signs; it may wait for a key that is being made.
	Key func() (crypto.Signer, error)
	// RootCA is the PEM bundle that holders trust the API server by.
	RootCA []byte
	Logger *slog.Logger
}

// Controller fills Secrets.
type Controller struct {
	c        Config
	secrets  client.Typed[*corev1.Secret]
	accounts client.Typed[*corev1.ServiceAccount]
	queue    *queue.Queue[key]
}

// key is a Secret and the account it names: that one loses its reference when
// the Secret is gone.
type key struct{ namespace, secret, account string }

// New returns the controller.
func New(config Config) *Controller {
	api := config.Client
	c := &Controller{c: config, accounts: client.For[*corev1.ServiceAccount](api),
		secrets: client.For[*corev1.Secret](api).With(client.InformerOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})}
	c.queue = queue.New("serviceaccount_tokens_service", config.Logger, c.reconcile)
	account := func(s *corev1.Secret) string { return s.Annotations[corev1.ServiceAccountNameKey] }
	c.secrets.AddIndex(index, func(s *corev1.Secret) []string { return []string{s.Namespace + "/" + account(s)} })
	add := func(s *corev1.Secret) { c.queue.Add(key{s.Namespace, s.Name, account(s)}) }
	c.secrets.AddHandler(client.Handler[*corev1.Secret]{Add: add, Delete: add, Update: func(_, s *corev1.Secret) { add(s) }})
	c.accounts.AddHandler(client.Handler[*corev1.ServiceAccount]{Delete: func(sa *corev1.ServiceAccount) {
		for _, s := range c.secrets.ByIndex(index, sa.Namespace+"/"+sa.Name) {
			add(s)
		}
	}})
	return c
}

// Run fills Secrets until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.secrets.Informer(), c.accounts.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, k key) error {
	secret, err := c.secrets.Cached(k.namespace, k.secret)
	if apierrors.IsNotFound(err) {
		return c.unreference(ctx, k)
	}
	if err != nil {
		return err
	}
	account, err := c.accountOf(ctx, k, types.UID(secret.Annotations[corev1.ServiceAccountUIDKey]))
	if err != nil {
		return err
	}
	if account == nil {
		err := c.secrets.Delete(ctx, secret.Namespace, secret.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		return ignoreGone(err)
	}
	next, err := c.filled(secret, account)
	if next == nil || err != nil {
		return err
	}
	_, err = c.secrets.Update(ctx, next)
	return ignoreGone(err)
}

// accountOf returns the account a Secret names, nil if it is gone or another
// of that name.
func (c *Controller) accountOf(ctx context.Context, k key, uid types.UID) (*corev1.ServiceAccount, error) {
	account, err := c.accounts.Cached(k.namespace, k.account)
	if apierrors.IsNotFound(err) || err == nil && uid != "" && account.UID != uid {
		account, err = c.accounts.Get(ctx, k.namespace, k.account)
	}
	if apierrors.IsNotFound(err) || err == nil && uid != "" && account.UID != uid {
		return nil, nil
	}
	return account, err
}

// filled returns the Secret with what it lacks, nil if that is nothing.
func (c *Controller) filled(secret *corev1.Secret, account *corev1.ServiceAccount) (*corev1.Secret, error) {
	needsCA := len(c.c.RootCA) > 0 && !bytes.Equal(secret.Data[corev1.ServiceAccountRootCAKey], c.c.RootCA)
	needsNamespace, needsToken := len(secret.Data[corev1.ServiceAccountNamespaceKey]) == 0, len(secret.Data[corev1.ServiceAccountTokenKey]) == 0
	if !needsCA && !needsNamespace && !needsToken {
		return nil, nil
	}
	next := secret.DeepCopy()
	if next.Data == nil {
		next.Data = map[string][]byte{}
	}
	if needsCA {
		next.Data[corev1.ServiceAccountRootCAKey] = c.c.RootCA
	}
	if needsNamespace {
		next.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
	}
	if needsToken {
		key, err := c.c.Key()
		if err != nil {
			return nil, err
		}
		token, err := issue(key, account, secret.Name)
		if err != nil {
			return nil, err
		}
		next.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, corev1.ServiceAccountNameKey, account.Name)
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, corev1.ServiceAccountUIDKey, string(account.UID))
	return next, nil
}

// unreference takes a Secret that is gone off its account's list.
func (c *Controller) unreference(ctx context.Context, k key) error {
	listed := func(ref corev1.ObjectReference) bool { return ref.Name == k.secret }
	account, err := c.accounts.Cached(k.namespace, k.account)
	if err != nil || !slices.ContainsFunc(account.Secrets, listed) {
		return ignoreGone(err)
	}
	next := account.DeepCopy()
	next.Secrets = slices.DeleteFunc(next.Secrets, listed)
	_, err = c.accounts.Update(ctx, next)
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
