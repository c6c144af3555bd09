// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// maxDocument bounds what a server may say about itself.
const maxDocument = 32 << 20

// get asks the server. The answer's body is the caller's to close.
func (r *remote) get(ctx context.Context, target *url.URL, accept, etag string, who user.Info) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	setUser(req.Header, who)
	asker := http.Client{
		Transport: r.transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return asker.Do(req)
}

// document is what the server said to one question.
type document struct {
	code        int
	contentType string
	etag        string
	body        []byte
}

// fetch asks the server and reads its answer.
func (r *remote) fetch(ctx context.Context, path, accept, etag string, who user.Info) (document, error) {
	base, err := r.resolve()
	if err != nil {
		return document{}, err
	}
	answer, err := r.get(ctx, base.JoinPath(path), accept, etag, who)
	if err != nil {
		return document{}, err
	}
	defer answer.Body.Close()
	d := document{code: answer.StatusCode, contentType: answer.Header.Get("Content-Type"), etag: answer.Header.Get("Etag")}
	if d.code != http.StatusOK {
		return d, nil
	}
	d.body, err = io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if len(d.body) > maxDocument {
		return d, fmt.Errorf("%s is longer than %d bytes", path, maxDocument)
	}
	return d, err
}

// learn asks the server what it serves. It is true when an answer is missing and
// to be asked for again soon.
func (r *remote) learn(ctx context.Context, k *knowledge) bool {
	var discovery, v3, v2 error
	var all sync.WaitGroup
	all.Go(func() { discovery = r.learnDiscovery(ctx, k) })
	all.Go(func() { v3 = r.learnIndex(ctx, k) })
	all.Go(func() { v2 = r.learnV2(ctx, k) })
	all.Wait()
	if discovery != nil {
		k.document, k.discoveryTag = r.stale(), ""
	}
	if discovery != nil || v3 != nil || v2 != nil {
		return true
	}
	k.learned = time.Now()
	return false
}

const (
	mediaJSON  = "application/json"
	aggregated = mediaJSON + ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
)

// learnDiscovery reads the resources of the version: from the document of all
// groups, or where the server has none in that form, the version's own.
func (r *remote) learnDiscovery(ctx context.Context, k *knowledge) error {
	d, err := r.fetch(ctx, "apis", aggregated, k.discoveryTag, aggregatorUser)
	switch {
	case err != nil:
		return err
	case d.code == http.StatusNotModified && k.discoveryTag != "":
		return nil
	case d.code == http.StatusServiceUnavailable:
		return fmt.Errorf("the server answered with the code %d", d.code)
	case d.code != http.StatusOK || !isAggregated(d.contentType):
		return r.learnPlain(ctx, k)
	}
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(d.body, &list); err != nil {
		return err
	}
	k.document, k.discoveryTag = r.ownVersion(&list), d.etag
	return nil
}

func isAggregated(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == mediaJSON && params["g"] == apidiscoveryv2.GroupName && params["v"] == "v2" && params["as"] == "APIGroupDiscoveryList"
}

// ownVersion takes the version out of a server's document.
func (r *remote) ownVersion(list *apidiscoveryv2.APIGroupDiscoveryList) apidiscoveryv2.APIVersionDiscovery {
	own := apidiscoveryv2.APIVersionDiscovery{Version: r.gv.Version}
	for i := range list.Items {
		for _, v := range list.Items[i].Versions {
			if list.Items[i].Name == r.gv.Group && v.Version == r.gv.Version {
				own = v
			}
		}
	}
	own.Freshness = apidiscoveryv2.DiscoveryFreshnessCurrent
	for i := range own.Resources {
		// Some clients take it for granted.
		res := &own.Resources[i]
		if res.ResponseKind == nil {
			res.ResponseKind = &metav1.GroupVersionKind{}
		}
		for j := range res.Subresources {
			if res.Subresources[j].ResponseKind == nil {
				res.Subresources[j].ResponseKind = &metav1.GroupVersionKind{}
			}
		}
	}
	return own
}

func (r *remote) learnPlain(ctx context.Context, k *knowledge) error {
	path := "apis/" + r.gv.Group + "/" + r.gv.Version
	d, err := r.fetch(ctx, path, mediaJSON, "", aggregatorUser)
	if err != nil {
		return err
	}
	if d.code != http.StatusOK {
		return fmt.Errorf("the server answered to /%s with the code %d", path, d.code)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(d.body, &list); err != nil {
		return err
	}
	k.discoveryTag = ""
	k.document = apidiscoveryv2.APIVersionDiscovery{
		Version: r.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Resources: resources(list.APIResources),
	}
	return nil
}

// resources turns a plain list into the aggregated form.
func resources(list []metav1.APIResource) []apidiscoveryv2.APIResourceDiscovery {
	var out []apidiscoveryv2.APIResourceDiscovery
	at := map[string]int{}
	scope := func(r metav1.APIResource) apidiscoveryv2.ResourceScope {
		if r.Namespaced {
			return apidiscoveryv2.ScopeNamespace
		}
		return apidiscoveryv2.ScopeCluster
	}
	for _, r := range list {
		if strings.Contains(r.Name, "/") {
			continue
		}
		at[r.Name] = len(out)
		out = append(out, apidiscoveryv2.APIResourceDiscovery{
			Resource: r.Name, ResponseKind: &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}, Scope: scope(r),
			SingularResource: r.SingularName, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
	}
	for _, r := range list {
		main, sub, found := strings.Cut(r.Name, "/")
		if !found {
			continue
		}
		i, known := at[main]
		if !known {
			i = len(out)
			at[main] = i
			out = append(out, apidiscoveryv2.APIResourceDiscovery{Resource: main, Scope: scope(r), ResponseKind: &metav1.GroupVersionKind{}})
		}
		out[i].Subresources = append(out[i].Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: sub, ResponseKind: &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}, Verbs: r.Verbs,
		})
	}
	return out
}

// learnIndex reads which OpenAPI v3 documents the server has. One without is
// known by its v2 document.
func (r *remote) learnIndex(ctx context.Context, k *knowledge) error {
	d, err := r.fetch(ctx, "openapi/v3", mediaJSON, k.indexTag, schemaUser)
	switch {
	case err != nil:
		return err
	case d.code == http.StatusNotModified && k.indexTag != "":
		return nil
	case d.code == http.StatusNotFound:
		k.index, k.indexTag = nil, ""
		return nil
	case d.code != http.StatusOK:
		return fmt.Errorf("the server answered to /openapi/v3 with the code %d", d.code)
	}
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(d.body, &index); err != nil {
		return err
	}
	k.index, k.indexTag = map[string]string{}, d.etag
	for path, at := range index.Paths {
		k.index[path] = at.URL
	}
	return nil
}

// schemaV2 is the server's OpenAPI v2 document: JSON, compressed. It is empty
// for a server without.
type schemaV2 struct {
	compressed []byte
	etag       string // as the server calls it, or made here
	remote     bool   // whether the server did
}

func (r *remote) learnV2(ctx context.Context, k *knowledge) error {
	etag := ""
	if k.v2.remote {
		etag = k.v2.etag
	}
	d, err := r.fetch(ctx, "openapi/v2", mediaJSON, etag, schemaUser)
	switch {
	case err != nil:
		return err
	case d.code == http.StatusNotModified && etag != "":
		return nil
	case d.code == http.StatusNotFound:
		k.v2 = schemaV2{}
		return nil
	case d.code != http.StatusOK:
		return fmt.Errorf("the server answered to /openapi/v2 with the code %d", d.code)
	case !json.Valid(d.body):
		return fmt.Errorf("the server's /openapi/v2 is not JSON")
	}
	next := schemaV2{etag: d.etag, remote: d.etag != ""}
	if !next.remote {
		next.etag = fmt.Sprintf("%X", sha512.Sum512(d.body))
	}
	if next.etag == k.v2.etag {
		return nil
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(d.body); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	next.compressed = out.Bytes()
	k.v2 = next
	return nil
}
