// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/munnerz/goautoneg"
)

// The media types of the protobuf forms; the second spelling is the one
// answers carry, the first is what older clients ask for.
const (
	protoV2Old = "com.github.proto-openapi.spec.v2@v1.0+protobuf"
	protoV2    = "com.github.proto-openapi.spec.v2.v1.0+protobuf"
	protoV3Old = "com.github.proto-openapi.spec.v3@v1.0+protobuf"
	protoV3    = "com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// ServeHTTP answers /openapi/v2, /openapi/v3 and what is below it.
func (o *OpenAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := o.now()
	path := strings.Trim(r.URL.Path, "/")
	switch {
	case path == "openapi/v2":
		o.serve(w, r, s, nameV2)
	case path == "openapi/v3":
		data, err := o.indexDocument(s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Etag", strconv.Quote(fmt.Sprintf("%X", sha512.Sum512(data))))
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(data)
	case strings.HasPrefix(path, "openapi/v3/"):
		name := strings.TrimPrefix(path, "openapi/v3/")
		if to := o.elsewhere(s, name); to != nil {
			to.ServeHTTP(w, r)
			return
		}
		o.serve(w, r, s, name)
	default:
		http.NotFound(w, r)
	}
}

// serve answers with one document.
func (o *OpenAPI) serve(w http.ResponseWriter, r *http.Request, s *state, name string) {
	w.Header().Set("Vary", "Accept")
	format, contentType, ok := negotiate(r.Header.Get("Accept"), name == nameV2)
	if !ok {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	identity := o.identify(s, name)
	if identity == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Etag", strconv.Quote(identity))
	if hash := r.URL.Query().Get("hash"); hash != "" && name != nameV2 {
		if hash != identity {
			http.Redirect(w, r, "/openapi/v3/"+name+"?hash="+identity, http.StatusMovedPermanently)
			return
		}
		h.Set("Cache-Control", "public, immutable")
		h.Set("Expires", time.Now().AddDate(1, 0, 0).Format(time.RFC1123))
	}
	if r.Header.Get("If-None-Match") == strconv.Quote(identity) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	doc, err := o.document(s, name, format, identity)
	if err != nil {
		for _, name := range []string{"Content-Type", "Etag", "Cache-Control", "Expires"} {
			h.Del(name)
		}
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.Write(doc.compressed)
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(doc.compressed))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	io.Copy(w, z)
}

// negotiate returns the format a client accepts and its media type.
func negotiate(accept string, v2 bool) (format, contentType string, ok bool) {
	if accept == "" {
		accept = "*/*"
	}
	newer, older := protoV3, protoV3Old
	if v2 {
		newer, older = protoV2, protoV2Old
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		if clause.Type != "application" && clause.Type != "*" {
			continue
		}
		switch clause.SubType {
		case "json", "*":
			return formatJSON, "application/json", true
		case newer, older:
			return formatProto, "application/" + newer, true
		}
	}
	return "", "", false
}
