// SPDX-License-Identifier: Apache-2.0

// Package bootstraptoken has two controllers of the Secrets that let machines
// join: one signs the ConfigMap kube-public/cluster-info with every token that
// may sign, one deletes tokens that have expired. The controller manager runs
// them where they are asked for. The API server checks tokens, not they.
package bootstraptoken

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

const (
	secretPrefix    = "bootstrap-token-"
	configMap       = "cluster-info"
	kubeconfigKey   = "kubeconfig"
	signaturePrefix = "jws-kubeconfig-"

	idKey         = "token-id"
	secretKey     = "token-secret"
	expirationKey = "expiration"
	signingKey    = "usage-bootstrap-signing"
)

func secrets(api client.Interface) client.Typed[*corev1.Secret] {
	return client.For[*corev1.Secret](api).With(client.InformerOptions{Namespace: metav1.NamespaceSystem,
		FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
}

// left is how long a token still works; what cannot be read has expired. false
// says that it never does.
func left(s *corev1.Secret) (time.Duration, bool) {
	text := string(s.Data[expirationKey])
	if text == "" {
		return 0, false
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, true
	}
	return time.Until(at), true
}

// Signer signs the ConfigMap.
type Signer struct {
	secrets client.Typed[*corev1.Secret]
	maps    client.Typed[*corev1.ConfigMap]
	queue   *queue.Queue[struct{}]
	log     *slog.Logger
}

// NewSigner returns the controller that signs.
func NewSigner(api client.Interface, log *slog.Logger) *Signer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Signer{log: log, secrets: secrets(api), maps: client.For[*corev1.ConfigMap](api).With(
		client.InformerOptions{Namespace: metav1.NamespacePublic, FieldSelector: "metadata.name=" + configMap})}
	s.queue = queue.New("bootstrap_signer_queue", log, s.reconcile)
	again := func() { s.queue.Add(struct{}{}) }
	s.maps.AddHandler(client.Handler[*corev1.ConfigMap]{Add: func(*corev1.ConfigMap) { again() }, Update: func(_, _ *corev1.ConfigMap) { again() }})
	s.secrets.AddHandler(client.Handler[*corev1.Secret]{Add: func(*corev1.Secret) { again() }, Update: func(_, _ *corev1.Secret) { again() }, Delete: func(*corev1.Secret) { again() }})
	return s
}

// Run signs until ctx ends.
func (s *Signer) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, s.secrets.Informer(), s.maps.Informer()) {
		s.queue.Run(ctx, 1)
	}
	return nil
}

func (s *Signer) reconcile(ctx context.Context, _ struct{}) error {
	info, err := s.maps.Cached(metav1.NamespacePublic, configMap)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	content, ok := info.Data[kubeconfigKey]
	if !ok {
		s.log.Warn("there is nothing to sign", "configMap", metav1.NamespacePublic+"/"+configMap, "without", kubeconfigKey)
		return nil
	}
	next := info.DeepCopy()
	maps.DeleteFunc(next.Data, func(key, _ string) bool { return strings.HasPrefix(key, signaturePrefix) })
	for id, secret := range s.tokens() {
		next.Data[signaturePrefix+id] = sign(content, id, secret)
	}
	if maps.Equal(info.Data, next.Data) {
		return nil
	}
	_, err = s.maps.Update(ctx, next)
	return err
}

var idForm, secretForm = regexp.MustCompile(`^[a-z0-9]{6}$`), regexp.MustCompile(`^[a-z0-9]{16}$`)

// tokens returns the tokens that sign, by their names.
func (s *Signer) tokens() map[string]string {
	out := map[string]string{}
	for _, secret := range s.secrets.CachedList(metav1.NamespaceSystem, labels.Everything()) {
		id, value := string(secret.Data[idKey]), string(secret.Data[secretKey])
		remaining, expires := left(secret)
		if expires && remaining > 0 {
			s.queue.AddAfter(struct{}{}, remaining)
		}
		if idForm.MatchString(id) && secretForm.MatchString(value) && secret.Name == secretPrefix+id && secret.DeletionTimestamp == nil &&
			string(secret.Data[signingKey]) == "true" && (!expires || remaining > 0) {
			out[id] = value
		}
	}
	return out
}

// sign returns a JSON web signature (RFC 7515) without the content.
func sign(content, id, secret string) string {
	encode := base64.RawURLEncoding.EncodeToString
	header := encode(fmt.Appendf(nil, `{"alg":"HS256","kid":%q}`, id))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(header + "." + encode([]byte(content))))
	return header + ".." + encode(mac.Sum(nil))
}

// Cleaner deletes tokens that have expired.
type Cleaner struct {
	secrets client.Typed[*corev1.Secret]
	queue   *queue.Queue[string]
}

// NewCleaner returns the controller that deletes.
func NewCleaner(api client.Interface, log *slog.Logger) *Cleaner {
	c := &Cleaner{secrets: secrets(api)}
	c.queue = queue.New("token_cleaner", log, c.reconcile)
	add := func(s *corev1.Secret) { c.queue.Add(s.Name) }
	c.secrets.AddHandler(client.Handler[*corev1.Secret]{Add: add, Update: func(_, s *corev1.Secret) { add(s) }})
	return c
}

// Run deletes until ctx ends.
func (c *Cleaner) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.secrets.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Cleaner) reconcile(ctx context.Context, name string) error {
	secret, err := c.secrets.Cached(metav1.NamespaceSystem, name)
	if err == nil {
		remaining, expires := left(secret)
		switch {
		case !expires:
		case remaining > 0:
			c.queue.AddAfter(name, remaining)
		default:
			err = c.secrets.Delete(ctx, secret.Namespace, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		}
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
