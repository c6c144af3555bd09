// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func newStore(t testing.TB, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Root: filepath.Join(t.TempDir(), "images"), Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// layerOf makes a layer of files.
func layerOf(t testing.TB, files map[string]string) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// serve runs a registry behind a handler and returns its address.
func serve(t testing.TB, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	server := httptest.NewServer(wrap(registry.New(registry.Logger(log.New(io.Discard, "", 0)))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func plain(h http.Handler) http.Handler { return h }

func push(t testing.TB, ref string, img remote.Taggable, options ...remote.Option) {
	t.Helper()
	target, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	switch what := img.(type) {
	case v1.Image:
		err = remote.Write(target, what, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(target, what, options...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func reason(err error) PullReason {
	if failed, ok := errors.AsType[*PullError](err); ok {
		return failed.Reason
	}
	return -1
}

// TestPull pulls by tag and digest, shares layers and finds all again after a restart.
func TestPull(t *testing.T) {
	host := serve(t, plain)
	base := layerOf(t, map[string]string{"a": "one"})
	push(t, host+"/x/first:v1", imageOf(t, base))
	second := imageOf(t, base, layerOf(t, map[string]string{"b": "two"}))
	push(t, host+"/x/second:v1", second)
	s := newStore(t)
	first, err := s.Pull(t.Context(), host+"/x/first:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := second.Digest()
	if err != nil {
		t.Fatal(err)
	}
	byDigest, err := s.Pull(t.Context(), host+"/x/second@"+digest.String(), Auth{})
	if err != nil {
		t.Fatal(err)
	}
	if len(byDigest.RepoTags) != 0 || !slices.Equal(byDigest.RepoDigests, []string{host + "/x/second@" + digest.String()}) {
		t.Errorf("pulled by digest: %v %v", byDigest.RepoTags, byDigest.RepoDigests)
	}
	if first.DiffIDs[0] != byDigest.DiffIDs[0] {
		t.Error("the shared layer differs")
	}
	again, err := Open(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{host + "/x/first:v1", first.ID, hexOf(first.ID)[:12], host + "/x/second@" + digest.String()} {
		if _, err := again.Get(n); err != nil {
			t.Error(err)
		}
	}
	target := filepath.Join(t.TempDir(), "root")
	if err := again.Mount(Rootfs{Layers: byDigest.DiffIDs, Target: target}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unmount(target); err != nil {
			t.Error(err)
		}
	})
	for file, content := range map[string]string{"a": "one", "b": "two"} {
		if raw, err := os.ReadFile(filepath.Join(target, file)); err != nil || string(raw) != content {
			t.Errorf("%s: %q, %v", file, raw, err)
		}
	}
}

// TestCompressions pulls an image whose layers are compressed in each of the ways
// that the OCI knows, and not at all.
func TestCompressions(t *testing.T) {
	host := serve(t, plain)
	var layers []v1.Layer
	for kind, media := range map[compression.Compression]types.MediaType{
		compression.GZip: types.OCILayer, compression.ZStd: types.OCILayerZStd, compression.None: types.OCIUncompressedLayer,
	} {
		raw, err := layerOf(t, map[string]string{"by-" + string(kind): string(kind)}).Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		files, err := io.ReadAll(raw)
		if err != nil {
			t.Fatal(err)
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
			tarball.WithCompression(kind), tarball.WithMediaType(media))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	push(t, host+"/x/mixed:v1", mutate.MediaType(imageOf(t, layers...), types.OCIManifestSchema1))
	s := newStore(t)
	img, err := s.Pull(t.Context(), host+"/x/mixed:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range img.DiffIDs {
		found, err := filepath.Glob(filepath.Join(s.LayerPath(id), "by-*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("layer %s holds %q, %v", id, found, err)
		}
		if raw, err := os.ReadFile(found[0]); err != nil || "by-"+string(raw) != filepath.Base(found[0]) {
			t.Errorf("%s: %q, %v", found[0], raw, err)
		}
	}
}

// TestTagMoves gives a tag to the newer image.
func TestTagMoves(t *testing.T) {
	host := serve(t, plain)
	s := newStore(t)
	var ids []string
	for _, content := range []string{"old", "new"} {
		push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": content})))
		img, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ID)
	}
	if img, err := s.Get(host + "/x/y:v1"); err != nil || img.ID != ids[1] {
		t.Errorf("the tag names %v, %v", img, err)
	}
	if img, err := s.Get(ids[0]); err != nil || len(img.RepoTags) != 0 {
		t.Errorf("the old image keeps %v, %v", img, err)
	}
}

// TestPullErrors sorts what goes wrong.
func TestPullErrors(t *testing.T) {
	host := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if strings.Contains(r.URL.Path, "/private/") && (user != "u" || password != "p") || r.URL.Path == "/v2/" && user != "u" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if strings.Contains(r.URL.Path, "/broken/") {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	auth := remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "u", Password: "p"}))
	push(t, host+"/private/x:v1", imageOf(t, layerOf(t, map[string]string{"f": "x"})), auth)
	docker := filepath.Join(t.TempDir(), "config.json")
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("u:p")))
	if err := os.WriteFile(docker, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	right := Auth{Username: "u", Password: "p"}
	for _, test := range []struct {
		ref  string
		auth Auth
		want PullReason
	}{
		{host + "/private/x:v1", Auth{}, PullDenied},
		{host + "/private/x:v1", Auth{Username: "u", Password: "wrong"}, PullDenied},
		{host + "/public/none:v1", right, PullNotFound},
		{host + "/broken/x:v1", right, PullUnreachable},
		{"127.0.0.1:1/x:v1", Auth{}, PullUnreachable},
		{"Bad:reference:x", Auth{}, PullMalformed},
		{host + "/x@sha256:1234", Auth{}, PullMalformed},
	} {
		if _, err := s.Pull(t.Context(), test.ref, test.auth); reason(err) != test.want {
			t.Errorf("%s: %v (reason %d), want reason %d", test.ref, err, reason(err), test.want)
		}
	}
	if _, err := s.Pull(t.Context(), host+"/private/x:v1", right); err != nil {
		t.Errorf("with credentials: %v", err)
	}
	s = newStore(t, func(c *Config) { c.DockerConfig = docker })
	if _, err := s.Pull(t.Context(), host+"/private/x:v1", Auth{}); err != nil {
		t.Errorf("with docker's credentials: %v", err)
	}
}

// TestCorruptLayers refuses layers that are not what their digests say, and
// leaves nothing of them.
func TestCorruptLayers(t *testing.T) {
	corrupt := false
	host := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if corrupt && strings.Contains(r.URL.Path, "/blobs/") {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				raw := rec.Body.Bytes()
				if len(raw) > 20 && raw[0] == 0x1f {
					raw = raw[:len(raw)-9] // torn
				}
				w.WriteHeader(rec.Code)
				_, _ = w.Write(raw)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": strings.Repeat("content", 1000)})))
	s := newStore(t)
	corrupt = true
	if _, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{}); err == nil {
		t.Fatal("a torn layer is taken")
	}
	for _, dir := range []string{"layers", "tmp", "records"} {
		if left, err := os.ReadDir(filepath.Join(s.cfg.Root, dir)); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v, %v", dir, left, err)
		}
	}
	corrupt = false
	if _, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{}); err != nil {
		t.Errorf("after the registry has recovered: %v", err)
	}
}

// TestIndex takes the platform's image out of an index.
func TestIndex(t *testing.T) {
	host := serve(t, plain)
	mine, other := imageOf(t, layerOf(t, map[string]string{"f": "mine"})), imageOf(t, layerOf(t, map[string]string{"f": "other"}))
	here := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "plan9", Architecture: "mips"}}},
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &here}})
	push(t, host+"/x/index:v1", index)
	s := newStore(t)
	got, err := s.Pull(t.Context(), host+"/x/index:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := mine.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != want.String() || !slices.Equal(got.RepoDigests, []string{host + "/x/index@" + digest.String()}) {
		t.Errorf("got %v, want %s by the digest of the index %s", got, want, digest)
	}
}

// TestForeignLayers refuses layers that live elsewhere.
func TestForeignLayers(t *testing.T) {
	foreign, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer: layerOf(t, map[string]string{"f": "x"}), MediaType: types.DockerForeignLayer, URLs: []string{"https://elsewhere.example/x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	host := serve(t, plain)
	push(t, host+"/x/y:v1", foreign, remote.WithNondistributable)
	if _, err := newStore(t).Pull(t.Context(), host+"/x/y:v1", Auth{}); err == nil || !strings.Contains(err.Error(), "unsupported media type") {
		t.Errorf("got %v", err)
	}
}

// TestArchives exports in both formats and imports again elsewhere.
func TestArchives(t *testing.T) {
	host := serve(t, plain)
	push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": "x"})))
	s := newStore(t)
	img, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(img.ID, "busybox"); err != nil {
		t.Fatal(err)
	}
	for _, format := range []Format{FormatDocker, FormatOCI} {
		var archive bytes.Buffer
		if err := s.Export(t.Context(), &archive, format, "docker.io/library/busybox:latest"); err != nil {
			t.Fatal(err)
		}
		other := newStore(t)
		got, err := other.Import(t.Context(), &archive)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].ID != img.ID {
			t.Errorf("%s: imported %v, want %s", format, got, img.ID)
		}
		if _, err := other.Get("busybox"); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	if _, err := s.Import(t.Context(), strings.NewReader("no archive at all")); err == nil {
		t.Error("importing noise succeeds")
	}
}

// TestRemove removes what nobody holds.
func TestRemove(t *testing.T) {
	host := serve(t, plain)
	push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": "x"})))
	s := newStore(t)
	img, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	release := s.Hold(img.DiffIDs)
	if err := s.Remove(host + "/x/y:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(img.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed, and found: %v", err)
	}
	if _, err := os.Stat(s.layerDir(img.DiffIDs[0])); err != nil {
		t.Errorf("a held layer is gone: %v", err)
	}
	release()
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"layers", "blobs", "records"} {
		if left, err := os.ReadDir(filepath.Join(s.cfg.Root, dir)); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v, %v", dir, left, err)
		}
	}
}

// TestMirror pulls from where hosts.toml says.
func TestMirror(t *testing.T) {
	host := serve(t, plain)
	push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": "x"})))
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "registry.example"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "server = \"http://127.0.0.1:1\"\n[host.\"http://" + host + "\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "registry.example", "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := newStore(t, func(c *Config) { c.HostsDir = dir }).Pull(t.Context(), "registry.example/x/y:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(img.RepoTags, []string{"registry.example/x/y:v1"}) {
		t.Errorf("tags %v", img.RepoTags)
	}
}

func TestReferences(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"busybox":                     "docker.io/library/busybox:latest",
		"busybox:1.36":                "docker.io/library/busybox:1.36",
		"user/app":                    "docker.io/user/app:latest",
		"localhost/kaji":              "localhost/kaji:latest",
		"index.docker.io/library/x:y": "docker.io/library/x:y",
		"host:5000/a/b/c:tag":         "host:5000/a/b/c:tag",
		"host.example/a@" + digest:    "host.example/a@" + digest,
		"a:tag@" + digest:             "docker.io/library/a@" + digest,
		"":                            "",
		"a b":                         "",
		"UPPER/case":                  "",
		"a@sha256:short":              "",
		"a:":                          "",
	} {
		got, err := parseReference(in)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: %v, %v, want %q", in, got, err, want)
		}
	}
}

// TestPush brings an image to a registry that demands a login, and back.
func TestPush(t *testing.T) {
	from := serve(t, plain)
	to := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	push(t, from+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": "x"}), layerOf(t, map[string]string{"g": "y"})))
	s := newStore(t)
	img, err := s.Pull(t.Context(), from+"/x/y:v1", Auth{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), to+"/new/name:v2", Auth{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("pushing what is not there: %v", err)
	}
	if err := s.Tag(img.ID, to+"/new/name:v2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), to+"/new/name:v2", Auth{}); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("pushing without a login: %v", err)
	}
	config := filepath.Join(t.TempDir(), "config.json")
	text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, to, base64.StdEncoding.EncodeToString([]byte("me:secret")))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	auth := Login(config, to+"/new/name:v2")
	if err := s.Push(t.Context(), to+"/new/name:v2", auth); err != nil {
		t.Fatal(err)
	}
	back, err := newStore(t).Pull(t.Context(), to+"/new/name:v2", auth)
	if err != nil || back.ID != img.ID {
		t.Errorf("pulled %v, %v; want %s", back, err, img.ID)
	}
}

// breaking cuts the first answers that carry a layer in the middle.
func breaking(times int) func(http.Handler) http.Handler {
	var left atomic.Int64
	left.Store(int64(times))
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
				h.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			raw := rec.Body.Bytes()
			if len(raw) > 0 && raw[0] == 0x1f && left.Add(-1) >= 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
				_, _ = w.Write(raw[:len(raw)/2])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(raw)
		})
	}
}

// TestBrokenConnection asks again, and another host when that does not help.
func TestBrokenConnection(t *testing.T) {
	img := imageOf(t, layerOf(t, map[string]string{"f": strings.Repeat("x", 1000)}), layerOf(t, map[string]string{"g": "y"}))
	weak := serve(t, breaking(pullTries-1))
	push(t, weak+"/x/y:v1", img)
	if _, err := newStore(t).Pull(t.Context(), weak+"/x/y:v1", Auth{}); err != nil {
		t.Errorf("a connection that breaks: %v", err)
	}
	broken, sound := serve(t, breaking(1000)), serve(t, plain)
	push(t, broken+"/x/y:v1", img)
	push(t, sound+"/x/y:v1", img)
	if _, err := newStore(t).Pull(t.Context(), broken+"/x/y:v1", Auth{}); reason(err) != PullUnreachable && reason(err) != PullFailed {
		t.Errorf("a connection that always breaks: %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "_default"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "server = \"http://" + sound + "\"\n[host.\"http://" + broken + "\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "_default", "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t, func(c *Config) { c.HostsDir = dir }).Pull(t.Context(), "registry.example/x/y:v1", Auth{}); err != nil {
		t.Errorf("a mirror whose connection breaks: %v", err)
	}
}
