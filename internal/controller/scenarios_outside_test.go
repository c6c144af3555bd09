// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/cloud"
	"kaji/internal/controller"
	"kaji/internal/controller/servicelb"
	"kaji/internal/pki"
)

// onCloud gives the controllers a cloud that knows every machine but "gone".
func onCloud(c *controller.Config) {
	ranges(c)
	c.Cloud, c.CloudCluster = &sky{}, "test"
}

// sky is a cloud in memory.
type sky struct {
	mu     sync.Mutex
	routes []cloud.Route // guarded by mu
}

func (*sky) Name() string                 { return "sky" }
func (s *sky) Machines() cloud.Machines   { return s }
func (s *sky) Routes() cloud.Routes       { return s }
func (s *sky) Balancers() cloud.Balancers { return balancers{} }

func (*sky) Exists(_ context.Context, node *corev1.Node) (bool, error) {
	return node.Name != "gone", nil
}

func (*sky) Shutdown(context.Context, *corev1.Node) (bool, error) { return false, nil }

func (*sky) Describe(_ context.Context, node *corev1.Node) (*cloud.Machine, error) {
	if node.Name == "gone" {
		return nil, cloud.ErrUnknown
	}
	return &cloud.Machine{ProviderID: "sky://" + node.Name, Type: "big", Zone: "z", Region: "r",
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}, nil
}

func (s *sky) List(context.Context, string) ([]cloud.Route, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]cloud.Route(nil), s.routes...), nil
}

func (s *sky) Create(_ context.Context, _, _ string, r cloud.Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes = append(s.routes, r)
	return nil
}

func (s *sky) Delete(_ context.Context, _ string, r cloud.Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.routes {
		if s.routes[i].CIDR == r.CIDR {
			s.routes = append(s.routes[:i], s.routes[i+1:]...)
			break
		}
	}
	return nil
}

// balancers are that cloud's, at one address.
type balancers struct{}

func (balancers) Ensure(context.Context, string, *corev1.Service, []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	return &corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}}, nil
}
func (balancers) Update(context.Context, string, *corev1.Service, []*corev1.Node) error { return nil }
func (balancers) Delete(context.Context, string, *corev1.Service) error                 { return nil }

// pools has Services get addresses of a pool.
func pools(c *controller.Config) {
	p, err := servicelb.ParsePools([]string{"192.0.2.64/28"})
	if err != nil {
		panic(err)
	}
	c.LoadBalancer = &servicelb.Config{Pools: p}
}

// signers gives the controllers an authority; it is as young as the test's time.
func signers(c *controller.Config) {
	dir, err := os.MkdirTemp("", "ca")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ca, err := pki.EnsureCA(dir, "ca", "test")
	if err != nil {
		panic(err)
	}
	c.Signers = map[string]*pki.CA{"kubernetes.io/kube-apiserver-client-kubelet": ca, "kubernetes.io/kube-apiserver-client": ca}
}

// tokens gives the controllers a key for legacy tokens.
func tokens(c *controller.Config) {
	c.TokenKey = func() (crypto.Signer, error) { return tokenKey() }
}

var tokenKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// request is a certificate request of a node.
var request = sync.OnceValue(func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
})

// csr asks for a certificate.
func csr(name, signer string) string {
	return "POST /apis/certificates.k8s.io/v1/certificatesigningrequests\nmetadata: {name: " + name + "}\nspec: {signerName: " + signer + ", usages: [digital signature, client auth], request: " + request() + "}"
}

// ofPod is a request for a pod's certificate, with a proof of possession that fits it.
const ofPod = `POST /apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests
metadata: {name: a}
spec:
	signerName: example.com/signer
	podName: p
	podUID: 00000000-0000-4000-8000-000000000001
	serviceAccountName: default
	serviceAccountUID: 00000000-0000-4000-8000-000000000002
	nodeName: node
	nodeUID: 00000000-0000-4000-8000-000000000003
	stubPKCS10Request: MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPysb/AQpck2gOKSkcoDoVpTsSdeFvGysV2vGqAg0Nl9RPjoy/ua8TjGbXl3v01ju0Mn+I0K0InGCVwyflSzL/agADAKBggqhkjOPQQDAgNIADBFAiBgYg5A0OARU2h9OYqURkqFbee82RH6aF4z4g44RY8pBgIhAM/7qpCY2nPSNX+fJTz7+1WqnfwrR7zwc/eCKOrhETxt
`

// outside are the scenarios of controllers that work with keys, with a cloud
// or with what others report.
func outside() map[string]scenario {
	const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	uninitialized := func(name string) string {
		return "POST /api/v1/nodes\nmetadata: {name: " + name + "}\nspec: {taints: [{key: node.cloudprovider.kubernetes.io/uninitialized, value: 'true', effect: NoSchedule}]}\nstatus: {conditions: [{type: Ready, status: Unknown, reason: NodeStatusUnknown, message: silent}]}"
	}
	return map[string]scenario{
		"certificates": {controllers: "certificatesigningrequest-approving-controller certificatesigningrequest-signing-controller certificatesigningrequest-cleaner-controller", config: signers, steps: []string{
			csr("kubelet", "kubernetes.io/kube-apiserver-client-kubelet"), csr("client", "kubernetes.io/kube-apiserver-client"), csr("never", "example.com/unknown"), "live 10s",
			"PATCH " + requests + "/client/approval\nstatus: {conditions: [{type: Approved, status: 'True', reason: Test, message: fine}]}", "live 10s",
		}},
		"certificates that nobody wants": {controllers: "certificatesigningrequest-cleaner-controller podcertificaterequest-cleaner-controller", steps: []string{
			csr("never", "example.com/unknown"), ofPod, "wait 26h",
		}},
		"migration of storage": {controllers: "storage-version-migrator-controller", steps: []string{
			"POST " + core + "/configmaps\nmetadata: {name: a}", "POST " + core + "/configmaps\nmetadata: {name: b}",
			"POST /apis/storagemigration.k8s.io/v1/storageversionmigrations\nmetadata: {name: m}\nspec: {resource: {group: '', resource: configmaps}}",
			"POST /apis/storagemigration.k8s.io/v1/storageversionmigrations\nmetadata: {name: o}\nspec: {resource: {group: '', resource: configmaps}}", "live 10s",
		}},
		"status of policies": {controllers: "validatingadmissionpolicy-status-controller", steps: []string{
			"POST /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies\nmetadata: {name: v}\nspec: {matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}, validations: [{expression: object.spec.nope > 1}]}", "live 10s",
		}},
		"taints of devices": {controllers: "device-taint-eviction-controller resourceclaim-controller", steps: []string{
			node("n1"),
			"POST /apis/resource.k8s.io/v1/resourceslices\nmetadata: {name: s}\nspec: {driver: x.io, nodeName: n1, pool: {name: n1, generation: 1, resourceSliceCount: 1}, devices: [{name: d0}]}",
			"POST /apis/resource.k8s.io/v1/namespaces/default/resourceclaims\nmetadata: {name: c, finalizers: [resource.kubernetes.io/delete-protection]}\nspec: {devices: {requests: [{name: r, exactly: {deviceClassName: d}}]}}",
			"PATCH /apis/resource.k8s.io/v1/namespaces/default/resourceclaims/c/status\nstatus: {allocation: {devices: {results: [{request: r, driver: x.io, pool: n1, device: d0}]}}}",
			"POST " + core + "/pods\nmetadata: {name: p}\nspec: {nodeName: n1, terminationGracePeriodSeconds: 0, resourceClaims: [{name: c, resourceClaimName: c}], containers: [{name: c, image: one}]}", "live 10s",
			"POST /apis/resource.k8s.io/v1/devicetaintrules\nmetadata: {name: r}\nspec: {deviceSelector: {pool: n1}, taint: {key: t, effect: NoExecute}}", "live 40s",
			"DELETE /apis/resource.k8s.io/v1/namespaces/default/resourceclaims/c",
		}},
		"tokens that nobody uses": {controllers: "legacy-serviceaccount-token-cleaner-controller", config: func(c *controller.Config) { c.LegacyTokenPeriod = time.Hour }, steps: []string{
			"POST /api/v1/namespaces/kube-system/configmaps\nmetadata: {name: kube-apiserver-legacy-service-account-token-tracking}\ndata: {since: '1999-12-30'}",
			"POST " + core + "/serviceaccounts\nmetadata: {name: a}\nsecrets: [{name: t}, {name: u}]",
			"POST " + core + "/secrets\nmetadata: {name: t, annotations: {kubernetes.io/service-account.name: a}}\ntype: kubernetes.io/service-account-token",
			"POST " + core + "/secrets\nmetadata: {name: u, annotations: {kubernetes.io/service-account.name: a}, labels: {kubernetes.io/legacy-token-invalid-since: '1999-12-01'}}\ntype: kubernetes.io/service-account-token",
			"wait 49h", // it looks once a day, and the next day where that failed
		}},
		"legacy tokens": {controllers: "serviceaccount-token-controller serviceaccount-controller", config: tokens, steps: []string{
			"POST " + core + "/serviceaccounts\nmetadata: {name: a}",
			"POST " + core + "/secrets\nmetadata: {name: t, annotations: {kubernetes.io/service-account.name: a}}\ntype: kubernetes.io/service-account-token",
			"POST " + core + "/secrets\nmetadata: {name: u, annotations: {kubernetes.io/service-account.name: default}}\ntype: kubernetes.io/service-account-token", "live 10s",
			"DELETE " + core + "/serviceaccounts/a", "live 10s",
		}},
		"machines of a cloud": {controllers: "cloud-node-controller cloud-node-lifecycle-controller node-route-controller node-ipam-controller", config: onCloud, steps: []string{
			uninitialized("n1"), "live 10s", uninitialized("gone"), "live 60s",
		}},
		"balancers of a cloud": {controllers: "service-lb-controller", config: onCloud, steps: []string{
			node("n1"), "POST " + core + "/services\nmetadata: {name: a}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}",
			"POST " + core + "/services\nmetadata: {name: b}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.11, selector: {app: web}, ports: [{port: 80, nodePort: 30081}]}", "live 10s",
			"DELETE " + core + "/services/b", "live 10s",
		}},
		"balancers": {controllers: "service-lb-controller", config: pools, steps: []string{
			node("n1"), "POST " + core + "/services\nmetadata: {name: a}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}", "live 10s",
			"PATCH " + core + "/services/a\nspec: {type: ClusterIP}", "live 10s",
		}},
	}
}
