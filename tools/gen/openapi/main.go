// SPDX-License-Identifier: Apache-2.0

// Openapi writes the OpenAPI definitions of all published Kubernetes types to
// the assets that the API server embeds. Run it from tools/gen, with the
// directory of the assets:
//
//	go run ./openapi ../../internal/apiserver/openapi/assets
//
// It first generates Go code from the types' comments (definitions/, which is
// not kept), then compiles and dumps it.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const out = "openapi/definitions"

// others are the packages beside those of k8s.io/api.
var others = []string{
	"k8s.io/apimachinery/pkg/api/resource",
	"k8s.io/apimachinery/pkg/apis/meta/v1",
	"k8s.io/apimachinery/pkg/runtime",
	"k8s.io/apimachinery/pkg/util/intstr",
	"k8s.io/apimachinery/pkg/version",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1",
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1",
	"kaji/internal/api/autoscaling/v2beta1",
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: openapi ASSETS")
	}
	if err := generate(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func generate(assets string) error {
	defer os.RemoveAll(out)
	listed, err := exec.Command("go", "list", "k8s.io/api/...").Output()
	if err != nil {
		return fmt.Errorf("list k8s.io/api: %w", err)
	}
	packages := slices.Clone(others)
	for _, p := range strings.Fields(string(listed)) {
		// Versions alone hold types; reviews that travel between servers only
		// (admission, imagepolicy) are not part of the API.
		version := filepath.Base(p)
		if strings.HasPrefix(version, "v") && !strings.Contains(p, "/admission/") && !strings.Contains(p, "/imagepolicy/") {
			packages = append(packages, p)
		}
	}
	if err := run(append([]string{
		"tool", "openapi-gen", "--output-dir", out, "--output-pkg", "kaji/tools/gen/openapi/definitions",
		"--output-file", "zz_generated.openapi.go", "--report-filename", os.DevNull,
	}, packages...)...); err != nil {
		return err
	}
	return run("run", "./openapi/dump", assets)
}

func run(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", strings.Join(args[:2], " "), err)
	}
	return nil
}
