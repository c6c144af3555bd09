// SPDX-License-Identifier: Apache-2.0

// Package image makes the image localhost/kaji out of the embedded program
// cmd/box, so that a cluster has something to run where no registry is in
// reach. The cluster's wiring imports it into the runtime at start.
package image

import (
	"archive/tar"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"
)

// Name is the image's name; the tag latest is implied.
const Name = "localhost/kaji:latest"

//go:embed all:assets
var assets embed.FS

// links are the commands besides box itself, as links to it.
var links = []string{"sh", "bash", "pause", "web", "client", "load", "crash", "wget", "curl", "dig", "nslookup", "nc", "cat", "ls", "sleep", "env",
	"printenv", "hostname", "date", "id", "whoami", "mkdir", "rm", "touch", "cp", "mv", "ln", "head", "tail", "wc", "grep", "ps", "kill", "seq",
	"tee", "stat", "chmod", "uname", "dd", "mount", "tar", "sort", "echo", "printf", "true", "false", "test", "pwd"}

// Write writes the image as an archive that a runtime imports.
func Write(w io.Writer) error {
	packed, err := assets.ReadFile("assets/box.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("this build of kaji has no image inside; build it with `make build`")
	}
	if err != nil {
		return err
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer decoder.Close()
	program, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return fmt.Errorf("the embedded image is damaged: %w", err)
	}
	files := filesystem(program)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil }, tarball.WithCompressionLevel(1))
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	image, err = mutate.ConfigFile(image, configured(image))
	if err != nil {
		return err
	}
	tag, err := name.NewTag(Name)
	if err != nil {
		return err
	}
	return tarball.Write(tag, image, w)
}

func configured(image v1.Image) *v1.ConfigFile {
	config := &v1.ConfigFile{}
	if have, err := image.ConfigFile(); err == nil {
		config = have.DeepCopy()
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: []string{"/bin/box"}, Cmd: []string{"web"},
		Env: []string{"PATH=/bin"}, WorkingDir: "/",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Labels:       map[string]string{"org.opencontainers.image.title": "kaji"},
	}
	return config
}

// filesystem is the layer: the program, its links and what programs expect to
// find. It is the same for the same program, byte by byte.
func filesystem(program []byte) []byte {
	var buffer bytes.Buffer
	out := tar.NewWriter(&buffer)
	add := func(h tar.Header, content []byte) {
		h.ModTime, h.Size = time.Unix(0, 0), int64(len(content))
		// Writes to memory do not fail.
		_ = out.WriteHeader(&h)
		_, _ = out.Write(content)
	}
	for _, dir := range []string{"bin/", "etc/", "home/", "var/", "www/", "root/", "proc/", "sys/", "dev/"} {
		add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "bin/box", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, link := range links {
		add(tar.Header{Name: "bin/" + link, Typeflag: tar.TypeSymlink, Linkname: "box", Mode: 0o777}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nnobody:x:65534:\n"))
	add(tar.Header{Name: "www/index.html", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("<!doctype html><title>kaji</title><h1>kaji</h1>\n"))
	_ = out.Close()
	return buffer.Bytes()
}
