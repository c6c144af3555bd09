// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	configv1beta1 "k8s.io/kubelet/config/v1beta1"
)

func secret(uid, hash string) Login {
	return Login{Secret: &configv1beta1.ImagePullSecret{UID: uid, Namespace: "n", Name: "s" + uid, CredentialHash: hash}}
}

// Who may have an image that is on the node: by the policy, by how it came there,
// and by the logins that it was pulled with.
func TestRecords(t *testing.T) {
	account := Login{Account: &configv1beta1.ImagePullServiceAccount{UID: "a", Namespace: "n", Name: "a"}}
	var none []Login
	for name, row := range map[string]struct {
		policy  configv1beta1.ImagePullCredentialsVerificationPolicy
		pulled  []*Login // with these, one after the other
		shown   []Login
		pulling bool
		want    bool
	}{
		"preloaded":                                {configv1beta1.NeverVerifyPreloadedImages, nil, none, false, true},
		"preloaded, always verified":               {configv1beta1.AlwaysVerify, nil, []Login{secret("1", "h")}, false, false},
		"preloaded, on the list":                   {configv1beta1.NeverVerifyAllowlistedImages, nil, none, false, true},
		"preloaded, being pulled":                  {configv1beta1.NeverVerifyPreloadedImages, nil, none, true, false},
		"pulled by nobody":                         {configv1beta1.NeverVerifyPreloadedImages, []*Login{nil}, none, false, true},
		"pulled with a Secret, none shown":         {configv1beta1.NeverVerifyPreloadedImages, []*Login{of(secret("1", "h"))}, none, false, false},
		"pulled with a Secret, never verified":     {configv1beta1.NeverVerify, []*Login{of(secret("1", "h"))}, none, false, true},
		"pulled with the same Secret":              {configv1beta1.NeverVerifyPreloadedImages, []*Login{of(secret("1", "h"))}, []Login{secret("1", "h")}, false, true},
		"the same login in another Secret":         {configv1beta1.NeverVerifyPreloadedImages, []*Login{of(secret("1", "h"))}, []Login{secret("2", "h")}, false, true},
		"another login in the same Secret":         {configv1beta1.NeverVerifyPreloadedImages, []*Login{of(secret("1", "h"))}, []Login{secret("1", "i")}, false, true},
		"another login":                            {configv1beta1.NeverVerifyPreloadedImages, []*Login{of(secret("1", "h"))}, []Login{secret("2", "i")}, false, false},
		"another login, one of two":                {configv1beta1.AlwaysVerify, []*Login{of(secret("1", "h")), of(secret("2", "i"))}, []Login{secret("2", "i")}, false, true},
		"pulled with a Secret, then by nobody":     {configv1beta1.AlwaysVerify, []*Login{of(secret("1", "h")), nil}, none, false, true},
		"pulled for a service account, its pod":    {configv1beta1.AlwaysVerify, []*Login{&account}, []Login{account}, false, true},
		"pulled for a service account, other pods": {configv1beta1.AlwaysVerify, []*Login{&account}, []Login{secret("1", "h")}, false, false},
	} {
		dir := t.TempDir()
		r, err := OpenRecords(RecordsConfig{Dir: dir, Policy: row.policy, Allowed: []string{"r.example.com/team/*"}})
		if err != nil {
			t.Fatal(err)
		}
		if row.pulling {
			if err := r.begin("r.example.com/team/app:1"); err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range row.pulled {
			if err := r.note("r.example.com/team/app:1", "sha256:x", l); err != nil {
				t.Fatal(err)
			}
		}
		r, err = OpenRecords(r.cfg) // an agent that restarts knows it
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Allow("r.example.com/team/app:1", "sha256:x", func() ([]Login, error) { return row.shown, nil })
		if err != nil || got != row.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, row.want)
		}
	}
}

func of(l Login) *Login { return &l }

// Records go with their images; one that was written after the list was made stays.
func TestPrune(t *testing.T) {
	r, err := OpenRecords(RecordsConfig{Dir: t.TempDir(), Policy: configv1beta1.AlwaysVerify})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.note("a", "gone", nil), r.note("a", "there", nil)); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		entries, err := os.ReadDir(filepath.Join(r.cfg.Dir, "pulled"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if err := r.prune(map[string]bool{"there": true}, time.Now().Add(-time.Hour)); err != nil || count() != 2 {
		t.Errorf("%v, %d are left", err, count())
	}
	if err := r.prune(map[string]bool{"there": true}, time.Now().Add(time.Hour)); err != nil || count() != 1 {
		t.Errorf("%v, %d are left", err, count())
	}
}
