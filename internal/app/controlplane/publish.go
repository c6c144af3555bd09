// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

// published is the ConfigMap by which aggregated API servers know the cluster's
// clients and its front proxy.
const published = "extension-apiserver-authentication"

// authorities are the data of the ConfigMap, empty when nothing is to be told.
// A server alone tells only of authorities it was given, as upstream does.
func (p *Plane) authorities() (map[string]string, error) {
	a := &p.Options.Authentication
	data := map[string]string{}
	read := func(key, file string, own []byte) error {
		switch {
		case file != "":
			pem, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			data[key] = string(pem)
		case p.Options.PublishAuthorities:
			data[key] = string(own)
		}
		return nil
	}
	if err := read("client-ca-file", a.ClientCAFile, p.Keys.CA.Cert); err != nil {
		return nil, err
	}
	if err := read("requestheader-client-ca-file", a.RequestHeaderCAFile, p.Keys.FrontProxyCA.Cert); err != nil {
		return nil, err
	}
	if data["requestheader-client-ca-file"] == "" {
		return data, nil
	}
	for key, list := range map[string]struct{ given, own []string }{
		"requestheader-allowed-names":        {a.RequestHeaderNames, []string{"front-proxy-client"}},
		"requestheader-username-headers":     {a.RequestHeaderUsers, []string{"X-Remote-User"}},
		"requestheader-uid-headers":          {a.RequestHeaderUIDs, []string{"X-Remote-Uid"}},
		"requestheader-group-headers":        {a.RequestHeaderGroups, []string{"X-Remote-Group"}},
		"requestheader-extra-headers-prefix": {a.RequestHeaderExtraPrefix, []string{"X-Remote-Extra-"}},
	} {
		values := list.given
		if a.RequestHeaderCAFile == "" {
			values = list.own
		}
		if len(values) == 0 {
			if key == "requestheader-uid-headers" {
				continue
			}
			values = []string{}
		}
		text, err := json.Marshal(values)
		if err != nil {
			return nil, err
		}
		data[key] = string(text)
	}
	return data, nil
}

// publishEvery is how often the ConfigMap is compared with the authorities: their
// files may have changed, or somebody the ConfigMap.
const publishEvery = 5 * time.Second

// keepPublished goes on publishing until ctx ends.
func (p *Plane) keepPublished(ctx context.Context, c client.Interface) {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := p.publish(ctx, c); err != nil && ctx.Err() == nil {
			p.log.Error("cannot publish the authorities of clients", "configMap", published, "err", err)
		}
	}
}

// acquainted refuses a server with keys of its own making that comes to a store of
// another cluster: nothing that either signs would hold before the other.
func (p *Plane) acquainted(ctx context.Context) error {
	if !p.Options.PublishAuthorities || len(p.Options.Store.EtcdServers) == 0 || p.Options.Authentication.ClientCAFile != "" {
		return nil
	}
	kv, found, _, err := p.store.Get(ctx, "/registry/configmaps/"+metav1.NamespaceSystem+"/"+published)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	// A certificate reads the same in every encoding; what is encrypted shows none.
	if !found || !bytes.Contains(kv.Value, []byte("BEGIN CERTIFICATE")) {
		return nil
	}
	for _, form := range []string{"\n", `\n`} { // protobuf, JSON
		if own := strings.ReplaceAll(strings.TrimSpace(string(p.Keys.CA.Cert)), "\n", form); bytes.Contains(kv.Value, []byte(own)) {
			return nil
		}
	}
	return fmt.Errorf("the cluster in this store has another certificate authority: copy the directory %s from its first server to this one, or name its files with --client-ca-file and its like", p.Options.Serving.CertDir)
}

// publish writes the ConfigMap where it is missing or lacks something. What
// other servers of the cluster, or this one before, wrote into it stays.
func (p *Plane) publish(ctx context.Context, c client.Interface) error {
	data, err := p.authorities()
	if err != nil || len(data) == 0 {
		return err
	}
	configs := client.For[*corev1.ConfigMap](c)
	for {
		have, err := configs.Get(ctx, metav1.NamespaceSystem, published)
		switch {
		case apierrors.IsNotFound(err):
			_, err = configs.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: published}, Data: data})
		case err == nil:
			wanted := combined(have.Data, data, time.Now())
			if maps.Equal(have.Data, wanted) {
				return nil
			}
			changed := have.DeepCopy()
			changed.Data = wanted
			_, err = configs.Update(ctx, changed)
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
}

// combined returns what both say: all their certificates that have not expired,
// all their names and headers.
func combined(have, own map[string]string, now time.Time) map[string]string {
	all := maps.Clone(own)
	for key, text := range have {
		switch {
		case !strings.HasSuffix(key, "client-ca-file"):
			all[key] = union(text, own[key])
		case all[key] != text:
			if both := bundle(now, text, own[key]); both != "" {
				all[key] = both
			}
		}
	}
	return all
}

// union joins two lists in JSON, each value once.
func union(texts ...string) string {
	all := []string{}
	for _, text := range texts {
		var list []string
		// What is not a list was not written by a server: it is left out.
		_ = json.Unmarshal([]byte(text), &list)
		for _, v := range list {
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	return string(text)
}

// bundle joins certificates in PEM, each once, without those that expired five
// minutes ago and more.
func bundle(now time.Time, texts ...string) string {
	seen := map[string]bool{}
	var out strings.Builder
	for _, text := range texts {
		for rest := []byte(text); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil || seen[string(block.Bytes)] || !c.NotAfter.After(now.Add(-5*time.Minute)) {
				continue
			}
			seen[string(block.Bytes)] = true
			out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
		}
	}
	return out.String()
}
