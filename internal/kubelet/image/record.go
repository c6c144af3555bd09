// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// Login is one login at a registry, and whose it is: a Secret's, a service
// account's, or (with neither) the node's, which every pod on it has.
type Login struct {
	Auth    *runtimeapi.AuthConfig
	Secret  *configv1beta1.ImagePullSecret
	Account *configv1beta1.ImagePullServiceAccount
}

// RecordsConfig is what Records need.
type RecordsConfig struct {
	// Dir is where records are kept, as upstream's agent writes them:
	// "/var/lib/kubelet/image_manager".
	Dir string
	// Policy says when a pod must show that it may have an image that is there
	// already, Allowed are images that need no proof with NeverVerifyAllowlistedImages.
	Policy  configv1beta1.ImagePullCredentialsVerificationPolicy
	Allowed []string
}

// Records know with whose logins images were pulled (KEP-2535): who has none of
// them has to pull an image himself, though it lies on the node. They are safe for
// concurrent use.
type Records struct {
	cfg RecordsConfig
	mu  sync.Mutex // guards the files
}

// mostLogins is how many logins of an image are remembered without a pull.
const mostLogins = 100

// OpenRecords makes the directories. What was being pulled when the agent ended
// counts as pulled, by nobody.
func OpenRecords(cfg RecordsConfig) (*Records, error) {
	r := &Records{cfg: cfg}
	for _, dir := range []string{r.pulling(""), r.pulled("")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of image records: %w", err)
		}
	}
	return r, nil
}

func named(key string) string {
	if key == "" {
		return ""
	}
	return fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(key)))
}

func (r *Records) pulling(image string) string {
	return filepath.Join(r.cfg.Dir, "pulling", named(image))
}
func (r *Records) pulled(ref string) string { return filepath.Join(r.cfg.Dir, "pulled", named(ref)) }

// Allow says whether a pod may have an image that is there without pulling it;
// logins are asked for if they matter. name is as the pod writes it, ref the
// runtime's identity of the image.
func (r *Records) Allow(name, ref string, logins func() ([]Login, error)) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, err := r.read(ref)
	if err != nil {
		return false, nil // who knows: it is pulled
	}
	ours := record != nil
	if !ours {
		_, err := os.Stat(r.pulling(name))
		ours = err == nil
	}
	if !r.verify(name, ours) {
		return true, nil
	}
	if record == nil {
		return false, nil
	}
	known, ok := record.CredentialMapping[untagged(name)]
	switch {
	case ok && known.NodePodsAccessible:
		return true, nil
	case !ok || len(known.KubernetesSecrets) == 0 && len(known.KubernetesServiceAccounts) == 0:
		return false, nil
	}
	shown, err := logins()
	if err != nil {
		return false, err
	}
	for _, l := range shown {
		if l.Account != nil && slices.Contains(known.KubernetesServiceAccounts, *l.Account) {
			return true, nil
		}
		for _, s := range known.KubernetesSecrets {
			if l.Secret == nil {
				continue
			}
			content := l.Secret.CredentialHash == s.CredentialHash
			same := l.Secret.UID == s.UID && l.Secret.Namespace == s.Namespace && l.Secret.Name == s.Name
			if !content && !same {
				continue
			}
			if content && same {
				return true, nil
			}
			// The same login in another Secret, or another one in the same.
			if len(known.KubernetesSecrets) < mostLogins {
				return true, r.add(name, ref, &l)
			}
			if content {
				return true, nil
			}
		}
	}
	return false, nil
}

// verify says whether the policy wants proof.
func (r *Records) verify(name string, ours bool) bool {
	switch r.cfg.Policy {
	case configv1beta1.NeverVerify:
		return false
	case configv1beta1.AlwaysVerify:
		return true
	case configv1beta1.NeverVerifyAllowlistedImages:
		plain := untagged(name)
		return !slices.ContainsFunc(r.cfg.Allowed, func(pattern string) bool {
			prefix, wild := strings.CutSuffix(pattern, "*")
			return plain == pattern || wild && strings.HasPrefix(plain, prefix)
		})
	}
	return ours
}

// ValidPattern judges an entry of preloadedImagesVerificationAllowlist.
func ValidPattern(pattern string) error {
	plain, wild := strings.CutSuffix(pattern, "/*")
	switch {
	case pattern != strings.TrimSpace(pattern):
		return fmt.Errorf("leading/trailing spaces are not allowed: %s", pattern)
	case pattern == "":
		return fmt.Errorf("the supplied pattern is too short: %s", pattern)
	case strings.Contains(plain, "*"):
		return fmt.Errorf("not a valid wildcard pattern, only patterns ending with '/*' are allowed: %s", pattern)
	case wild && plain == "":
		return errors.New("at least registry hostname is required")
	case !wild && untagged(pattern) != pattern:
		return fmt.Errorf("neither tag nor digest is accepted in an image reference: %s", pattern)
	}
	return nil
}

// begin notes that an image is being pulled; end forgets it.
func (r *Records) begin(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return write(r.pulling(name), &configv1beta1.ImagePullIntent{TypeMeta: typeOf("ImagePullIntent"), Image: name})
}

func (r *Records) end(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(r.pulling(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that an image is pulled: %w", err)
	}
	return nil
}

// note records with whose login an image was pulled; nil is with none.
func (r *Records) note(name, ref string, with *Login) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.add(name, ref, with)
}

// add is called with the lock held.
func (r *Records) add(name, ref string, with *Login) error {
	record, err := r.read(ref)
	if err != nil || record == nil {
		record = &configv1beta1.ImagePulledRecord{TypeMeta: typeOf("ImagePulledRecord"), ImageRef: ref}
	}
	if record.CredentialMapping == nil {
		record.CredentialMapping = map[string]configv1beta1.ImagePullCredentials{}
	}
	c := record.CredentialMapping[untagged(name)]
	switch {
	case c.NodePodsAccessible:
		return nil
	case with == nil || with.Secret == nil && with.Account == nil:
		c = configv1beta1.ImagePullCredentials{NodePodsAccessible: true}
	case with.Account != nil:
		if slices.Contains(c.KubernetesServiceAccounts, *with.Account) {
			return nil
		}
		c.KubernetesServiceAccounts = append(c.KubernetesServiceAccounts, *with.Account)
	default:
		if slices.Contains(c.KubernetesSecrets, *with.Secret) {
			return nil
		}
		c.KubernetesSecrets = slices.DeleteFunc(c.KubernetesSecrets, func(s configv1beta1.ImagePullSecret) bool {
			return s.UID == with.Secret.UID && s.Namespace == with.Secret.Namespace && s.Name == with.Secret.Name
		})
		c.KubernetesSecrets = append(c.KubernetesSecrets, *with.Secret)
	}
	record.CredentialMapping[untagged(name)] = c
	record.LastUpdatedTime = metav1.Now()
	return write(r.pulled(ref), record)
}

// prune forgets images that are gone, whose records are older than the list of
// those that are there.
func (r *Records) prune(present map[string]bool, listed time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, err := os.ReadDir(r.pulled(""))
	if err != nil {
		return fmt.Errorf("read the records of images: %w", err)
	}
	for _, e := range entries {
		record, err := readRecord(filepath.Join(r.pulled(""), e.Name()))
		if err != nil || record == nil || present[record.ImageRef] || !record.LastUpdatedTime.Time.Before(listed) {
			continue
		}
		if err := os.Remove(filepath.Join(r.pulled(""), e.Name())); err != nil {
			return fmt.Errorf("forget an image: %w", err)
		}
	}
	return nil
}

func (r *Records) read(ref string) (*configv1beta1.ImagePulledRecord, error) {
	return readRecord(r.pulled(ref))
}

func readRecord(path string) (*configv1beta1.ImagePulledRecord, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record := &configv1beta1.ImagePulledRecord{}
	return record, json.Unmarshal(data, record)
}

func typeOf(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: configv1beta1.SchemeGroupVersion.String(), Kind: kind}
}

// write replaces a file as a whole.
func write(path string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return err
	}
	part := path + ".tmp"
	if err := os.WriteFile(part, data, 0o600); err != nil {
		return fmt.Errorf("write a record of an image: %w", err)
	}
	return os.Rename(part, path)
}

// untagged is a name without tag and digest.
func untagged(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name = name[:i]
	}
	return name
}

// whose says whose a Secret's logins are: those that plug-ins made have no
// identity, and as owner the service account that they acted for.
func whose(s *corev1.Secret, auth *runtimeapi.AuthConfig) Login {
	l := Login{Auth: auth}
	if s.UID != "" {
		data, err := json.Marshal(auth)
		if err != nil {
			return l
		}
		l.Secret = &configv1beta1.ImagePullSecret{UID: string(s.UID), Namespace: s.Namespace, Name: s.Name, CredentialHash: fmt.Sprintf("%x", sha256.Sum256(data))}
	}
	for _, o := range s.OwnerReferences {
		l.Account = &configv1beta1.ImagePullServiceAccount{UID: string(o.UID), Namespace: s.Namespace, Name: o.Name}
	}
	return l
}
