// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	kms "k8s.io/kms/pkg/service"

	"kaji/internal/store"
)

// Two keys of 32 bytes.
const (
	keyOne = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	keyTwo = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
)

// encryptionFile is a configuration of rules, each "resource,… provider,…".
func encryptionFile(rules ...string) string {
	providers := map[string]string{
		"cbc1": "aescbc: {keys: [{name: one, secret: " + keyOne + "}]}", "gcm1": "aesgcm: {keys: [{name: one, secret: " + keyOne + "}]}",
		"box1": "secretbox: {keys: [{name: one, secret: " + keyOne + "}]}", "identity": "identity: {}",
		"box21": "secretbox: {keys: [{name: two, secret: " + keyTwo + "}, {name: one, secret: " + keyOne + "}]}",
	}
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for _, rule := range rules {
		resources, names, _ := strings.Cut(rule, " ")
		text += fmt.Sprintf("- resources: ['%s']\n  providers:\n", strings.ReplaceAll(resources, ",", "','"))
		for name := range strings.SplitSeq(names, ",") {
			p, ok := providers[name]
			if !ok {
				p = name
			}
			text += "  - " + p + "\n"
		}
	}
	return text
}

// stored is a value as it is on disk.
func (p *Plane) stored(t *testing.T, key string) string {
	t.Helper()
	kv, ok, _, err := p.store.Get(t.Context(), key)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", key, ok, err)
	}
	return string(kv.Value)
}

func secretOf(name string) string {
	return `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "` + name + `"}, "stringData": {"password": "open sesame"}}`
}

const secrets = "/api/v1/namespaces/default/secrets"

// What is stored is what upstream stores: it reads ours, and we read its.
func TestEncryptionIsUpstreams(t *testing.T) {
	t.Parallel()
	for provider, prefix := range map[string]string{"cbc1": "k8s:enc:aescbc:v1:one:", "gcm1": "k8s:enc:aesgcm:v1:one:", "box1": "k8s:enc:secretbox:v1:one:"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			file := write(t, "enc.yaml", encryptionFile("secrets "+provider+",identity", "*.apps "+provider))
			p := start(t, "--encryption-provider-config", file)
			root := p.as(t, "root")
			root.must(secrets, secretOf("ours"))
			sealed := p.stored(t, "/registry/secrets/default/ours")
			if !strings.HasPrefix(sealed, prefix) || strings.Contains(sealed, "sesame") {
				t.Fatalf("stored %q", sealed)
			}
			upstream, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, "test")
			if err != nil {
				t.Fatal(err)
			}
			theirs := upstream.Transformers[schema.GroupResource{Resource: "secrets"}]
			plain, stale, err := theirs.TransformFromStorage(t.Context(), []byte(sealed), value.DefaultContext("/registry/secrets/default/ours"))
			if err != nil || stale || !strings.Contains(string(plain), "open sesame") {
				t.Fatalf("upstream reads %q, %v, %v", plain, stale, err)
			}
			// A value belongs to its key in the store, where the cipher can tell.
			_, _, err = theirs.TransformFromStorage(t.Context(), []byte(sealed), value.DefaultContext("/registry/secrets/default/other"))
			if readable := err == nil; readable == (provider == "gcm1") {
				t.Errorf("under another key: %v", err)
			}
			moved, err := theirs.TransformToStorage(t.Context(), []byte(strings.ReplaceAll(string(plain), "ours", "them")), value.DefaultContext("/registry/secrets/default/them"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.store.Commit(t.Context(), store.Txn{Ops: []store.Op{{Key: "/registry/secrets/default/them", Value: moved}}}); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "what upstream wrote is not read", func() bool { return root.do("GET", secrets+"/them", "").code == 200 })
			// The wildcard covers its group and nothing else.
			root.must("/api/v1/namespaces/default/configmaps", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}`)
			root.must("/apis/apps/v1/namespaces/default/controllerrevisions", `{"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "revision": 1, "data": {}}`)
			if strings.HasPrefix(p.stored(t, "/registry/configmaps/default/c"), "k8s:enc:") || !strings.HasPrefix(p.stored(t, "/registry/controllerrevisions/default/r"), prefix) {
				t.Error("the wildcard covers the wrong resources")
			}
		})
	}
}

// Keys are rotated while the server runs: the new one writes, the old one still
// reads, and an update that changes nothing rewrites what is stale.
func TestEncryptionRotation(t *testing.T) {
	t.Parallel()
	file := write(t, "enc.yaml", encryptionFile("secrets identity"))
	p := start(t, "--encryption-provider-config", file, "--encryption-provider-config-automatic-reload")
	root := p.as(t, "root")
	root.must(secrets, secretOf("a"))
	const key = "/registry/secrets/default/a"
	if !strings.HasPrefix(p.stored(t, key), "k8s\x00") {
		t.Fatalf("stored %q", p.stored(t, key))
	}
	rotate := func(providers, prefix string) {
		t.Helper()
		rewrite(t, file, encryptionFile("secrets "+providers))
		touch := func() bool {
			got := root.do("GET", secrets+"/a", "")
			if got.code != 200 {
				t.Fatalf("read: %v", got)
			}
			if put := root.do("PUT", secrets+"/a", string(got.body)); put.code != 200 {
				t.Fatalf("write: %v", put)
			}
			return strings.HasPrefix(p.stored(t, key), prefix)
		}
		waitUntil(t, "stale values are not written anew for "+providers, touch)
		before := p.stored(t, key)
		if touch(); p.stored(t, key) != before {
			t.Error("a value that is not stale is written anew")
		}
	}
	rotate("box1,identity", "k8s:enc:secretbox:v1:one:")
	rotate("box21", "k8s:enc:secretbox:v1:two:")
	rewrite(t, file, strings.Replace(encryptionFile("secrets gcm1"), keyOne, "c2hvcnQ=", 1))
	waitUntil(t, "a broken file is not counted", func() bool {
		return strings.Contains(string(root.do("GET", "/metrics", "").body), "apiserver_encryption_config_controller_automatic_reloads_total{apiserver_id_hash=") &&
			strings.Contains(string(root.do("GET", "/metrics", "").body), `status="failure"} 1`)
	})
	root.must(secrets, secretOf("b"))
	if !strings.HasPrefix(p.stored(t, "/registry/secrets/default/b"), "k8s:enc:secretbox:v1:two:") {
		t.Error("a broken file was taken over")
	}
}

// vault is a small KMS plug-in.
type vault struct {
	mu     sync.Mutex
	keyID  string
	sealer cipher.AEAD
	down   bool
}

func newVault(t *testing.T, socket string) *vault {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{keyID: "1"}
	if v.sealer, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	server := kms.NewGRPCService(socket, 5*time.Second, v)
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != nil {
			t.Errorf("plug-in: %v", err)
		}
	})
	return v
}

func (v *vault) set(keyID string, down bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keyID, v.down = keyID, down
}

func (v *vault) Status(context.Context) (*kms.StatusResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down {
		return nil, errors.New("sealed")
	}
	return &kms.StatusResponse{Version: "v2", Healthz: "ok", KeyID: v.keyID}, nil
}

func (v *vault) Encrypt(_ context.Context, _ string, data []byte) (*kms.EncryptResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	nonce := make([]byte, v.sealer.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return &kms.EncryptResponse{Ciphertext: v.sealer.Seal(nonce, nonce, data, nil), KeyID: v.keyID}, nil
}

func (v *vault) Decrypt(_ context.Context, _ string, r *kms.DecryptRequest) ([]byte, error) {
	n := v.sealer.NonceSize()
	if len(r.Ciphertext) < n {
		return nil, errors.New("short")
	}
	return v.sealer.Open(nil, r.Ciphertext[:n], r.Ciphertext[n:], nil)
}

// Values are encrypted by a KMS plug-in's key, and its health is the server's.
func TestEncryptionByKMS(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "kms.sock")
	v := newVault(t, socket)
	file := write(t, "enc.yaml", strings.ReplaceAll(encryptionFile("secrets PROVIDER"), "PROVIDER", "kms: {apiVersion: v2, name: vault, endpoint: 'unix://"+socket+"', timeout: 5s}"))
	p := start(t, "--encryption-provider-config", file)
	root := p.as(t, "root")
	root.must(secrets, secretOf("a"))
	sealed := p.stored(t, "/registry/secrets/default/a")
	if !strings.HasPrefix(sealed, "k8s:enc:kms:v2:vault:") || strings.Contains(sealed, "sesame") {
		t.Fatalf("stored %q", sealed)
	}
	upstream, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, "test")
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := upstream.Transformers[schema.GroupResource{Resource: "secrets"}].TransformFromStorage(t.Context(), []byte(sealed), value.DefaultContext("/registry/secrets/default/a"))
	if err != nil || !strings.Contains(string(plain), "open sesame") {
		t.Fatalf("upstream reads %q, %v", plain, err)
	}
	if got := root.do("GET", "/readyz/kms-providers", ""); got.code != http.StatusOK {
		t.Errorf("healthy: %v", got)
	}
	// The plug-in changes its key: values of the old one are stale.
	v.set("2", false)
	s := p.sealer
	if err := s.Recheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := root.do("GET", secrets+"/a", "")
	if put := root.do("PUT", secrets+"/a", string(got.body)); put.code != 200 {
		t.Fatal(put)
	}
	if p.stored(t, "/registry/secrets/default/a") == sealed {
		t.Error("a value of the plug-in's former key is not written anew")
	}
	v.set("2", true)
	if err := s.Recheck(t.Context()); err == nil {
		t.Error("a plug-in that is down is healthy")
	}
	if got := root.do("GET", "/readyz/kms-providers", ""); got.code == http.StatusOK {
		t.Errorf("down: %v", got)
	}
	// Its last key serves on for a while.
	root.must(secrets, secretOf("b"))
}

// A configuration that is wrong is refused at the start with the field's path.
func TestEncryptionConfigurationRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "is empty",
		encryptionFile("secrets kms: {name: old}"):                                                    "resources[0].providers[0].kms.endpoint: Invalid value",
		strings.Replace(encryptionFile("secrets box1"), keyOne, "c2hvcnQ=", 1):                        "resources[0].providers[0].secretbox.keys[0].secret: Invalid value",
		encryptionFile("*.* box1", "secrets box1"):                                                    `resource "secrets" is masked by earlier rule "*.*"`,
		strings.Replace(encryptionFile("secrets box1"), "providers:", "provider:", 1):                 `unknown field "resources[0].provider"`,
		strings.Replace(encryptionFile("secrets box1"), "resources: ['secrets']", "resources: []", 1): "resources[0].resources: Required value",
	} {
		err := refuseStart(t, "--encryption-provider-config", write(t, "enc.yaml", text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
