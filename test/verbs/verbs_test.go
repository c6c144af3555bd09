// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kaji/test/machine"
)

func contains(text string) func(string) bool {
	return func(out string) bool { return strings.Contains(out, text) }
}

// After `kaji down --purge` the machine is as it was before `kaji up`: no process,
// mount, link, address, route, rule, cgroup or file is left.
func TestPurgeLeavesNothing(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kubectl", "version", "--client") // unpacks kubectl, which is the user's to keep
	before := traces(t, m)
	m.Must(t, "kaji", "up", "--nodes=2")
	m.Must(t, "kubectl", "apply", "-f", testdata(t, "everything.yaml"))
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Ready", "pod/host", "--timeout=60s")
	if during := traces(t, m); len(during) < len(before)+10 {
		t.Errorf("a cluster that leaves no traces while it runs: %q", during)
	}
	m.Must(t, "kaji", "down", "--purge")
	for _, left := range difference(traces(t, m), before) {
		t.Errorf("left over: %s", left)
	}
}

// difference is what is in a and not in b, but for the directory with kubectl's
// cache.
func difference(a, b []string) []string {
	return slices.DeleteFunc(a, func(s string) bool {
		return slices.Contains(b, s) || strings.HasSuffix(s, "/.kube") || strings.HasSuffix(s, "/.kube/cache")
	})
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pods describes what must survive: names, UIDs, addresses, containers and how
// often they were started again.
func pods(t *testing.T, m *machine.Machine) string {
	t.Helper()
	return m.Must(t, "kubectl", "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIP} `+
		`{.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
}

func counter(t *testing.T, m *machine.Machine) {
	t.Helper()
	m.Must(t, "kubectl", "apply", "-f", testdata(t, "counter.yaml"))
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Ready", "pod/counter", "--timeout=60s")
	m.Eventually(t, contains(""), "curl", "-sf", "-m", "5", "10.96.77.77/files/count")
}

// count reads the pod's count through its Service.
func count(t *testing.T, m *machine.Machine) int {
	t.Helper()
	out := m.Eventually(t, func(s string) bool { return strings.TrimSpace(s) != "" }, "curl", "-sf", "-m", "5", "10.96.77.77/files/count")
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func processOf(t *testing.T, m *machine.Machine) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.DataDir(), "kaji.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// kill -9 of kaji stops no container and no traffic, and `kaji up` brings the same
// cluster back: pods, addresses, containers, volumes.
func TestKillAndUp(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up")
	counter(t, m)
	before, counted := pods(t, m), count(t, m)
	if err := syscall.Kill(processOf(t, m), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	meanwhile := count(t, m)
	m.Must(t, "kaji", "up")
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Ready", "pod/counter", "--timeout=60s")
	if after := pods(t, m); after != before {
		t.Errorf("pods before:\n%safter:\n%s%s", before, after, m.Must(t, "kubectl", "describe", "pods"))
	}
	if after := count(t, m); meanwhile < counted || after < meanwhile {
		t.Errorf("it counted to %d, then %d, then %d", counted, meanwhile, after)
	}
	if out := m.Must(t, "kubectl", "exec", "counter", "-c", "count", "--", "cat", "/www/count"); strings.TrimSpace(out) == "" {
		t.Error("the volume is empty")
	}
	if err := syscall.Kill(processOf(t, m), 0); err != nil {
		t.Errorf("the new process: %v", err)
	}
}

// A cluster that ends while `kaji up` waits for it, since it was about to, is
// started.
func TestUpOfADyingCluster(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up")
	pid := processOf(t, m)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	up := m.Command(t.Context(), "kaji", "up")
	out, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(up); err != nil {
		t.Fatal(err)
	}
	told := bufio.NewScanner(out)
	for told.Scan() && !strings.Contains(told.Text(), "running already") {
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for told.Scan() {
	}
	if err := up.Wait(); err != nil {
		t.Error(err)
	}
	if now := processOf(t, m); now == pid {
		t.Error("it was not started")
	}
	m.Must(t, "kubectl", "get", "nodes")
}

// runs says whether a process runs a program, itself or by its front.
func runs(t *testing.T, pid int, program string) bool {
	t.Helper()
	at := "/proc/" + strconv.Itoa(pid)
	env, err := os.ReadFile(at + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink(at + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	return exe == program || strings.Contains(string(env), "KAJI_PROGRAM="+program+"\x00")
}

// `kaji upgrade` exchanges the program under running pods: downloads go on by
// whichever way, a counter counts on, no container is started again.
func TestUpgrade(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up", "--nodes", "2")
	counter(t, m)
	before, counted, process := pods(t, m), count(t, m), processOf(t, m)

	if out := m.Must(t, "kaji", "upgrade"); !strings.Contains(out, "runs this program already") {
		t.Errorf("an upgrade to the same program says\n%s", out)
	}
	addresses := strings.Fields(m.Must(t, "kubectl", "get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`))
	slices.Sort(addresses)
	address, other := addresses[0], addresses[1]
	ways := map[string][]string{"ClusterIP": {"10.96.77.77/files/large"}, "NodePort": {address + ":30888/files/large"}, "LoadBalancer": {address + ":8088/files/large"},
		"Ingress": {"-H", "Host: counter.test", address + "/files/large"}, "the other node's Ingress": {"-H", "Host: counter.test", other + "/files/large"}}
	downloads := map[string]*exec.Cmd{}
	for way, to := range ways {
		m.Eventually(t, contains("200"), "curl", append([]string{"-s", "-I", "-o", "/dev/null", "-w", "%{http_code}"}, to...)...)
		downloads[way] = m.Command(t.Context(), "curl", append([]string{"-sf", "--limit-rate", "4M", "-o", filepath.Join(m.Home, way)}, to...)...)
		if err := m.Start(downloads[way]); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(filepath.Join(m.Home, "bin", "kaji"))
	if err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(m.Home, "kaji-newer")
	if err := os.WriteFile(newer, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if out := m.Must(t, newer, "upgrade"); !strings.Contains(out, "went from v1.37.2+kaji to v1.37.2+kaji") {
		t.Errorf("upgrade says\n%s", out)
	}
	if now := processOf(t, m); now == process {
		t.Error("the process is still the one before")
	} else if !runs(t, now, newer) {
		t.Errorf("the cluster does not run %s", newer)
	}
	for way, download := range downloads {
		if err := download.Wait(); err != nil {
			t.Errorf("the download by %s was cut off: %v", way, err)
		}
		if info, err := os.Stat(filepath.Join(m.Home, way)); err != nil || info.Size() != 64<<20 {
			t.Errorf("the download by %s is not whole: %v, %v", way, info, err)
		}
	}
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Ready", "pod/counter", "--timeout=60s")
	if after := pods(t, m); after != before {
		t.Errorf("pods before:\n%safter:\n%s%s", before, after, m.Must(t, "kubectl", "describe", "pods"))
	}
	if after := count(t, m); after <= counted {
		t.Errorf("it counted to %d before and to %d after", counted, after)
	}
}

// A backup holds a whole cluster, taken while it runs or when it is stopped; restored
// on another machine it has the same objects and keys, and its pods run.
func TestBackupRestore(t *testing.T) {
	m, other := machine.New(t), machine.New(t)
	m.Must(t, "kaji", "up")
	m.Must(t, "kubectl", "create", "secret", "generic", "word", "--from-literal=word=kept")
	m.Must(t, "kubectl", "create", "deployment", "web", "--image=localhost/kaji")
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
	uid := m.Must(t, "kubectl", "get", "deployment", "web", "-o", "jsonpath={.metadata.uid}")
	running, stopped := filepath.Join(m.Home, "running.backup"), filepath.Join(m.Home, "stopped.backup")
	if out := m.Must(t, "kaji", "backup", running); !strings.Contains(out, "saved cluster "+m.Name) {
		t.Errorf("backup says %s", out)
	}
	m.Must(t, "kaji", "down")
	m.Must(t, "kaji", "backup", stopped)
	if info, err := os.Stat(stopped); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a backup holds keys; its mode: %v, %v", info.Mode(), err)
	}
	m.Must(t, "kaji", "down", "--purge")

	broken := filepath.Join(m.Home, "broken.backup")
	if err := os.WriteFile(broken, []byte("no backup"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := other.Run(t, "kaji", "restore", broken); err == nil || !strings.Contains(out, "no backup that `kaji backup` made") {
		t.Errorf("restoring something else: %v\n%s", err, out)
	}
	for _, file := range []string{running, stopped} {
		other.Must(t, "kaji", "restore", file)
		if out, err := other.Run(t, "kaji", "restore", file); err == nil || !strings.Contains(out, "is not empty") {
			t.Errorf("restoring over a cluster: %v\n%s", err, out)
		}
		other.Must(t, "kaji", "up")
		if got := other.Must(t, "kubectl", "get", "secret", "word", "-o", "jsonpath={.data.word}"); got != "a2VwdA==" {
			t.Errorf("the secret is %q", got)
		}
		if got := other.Must(t, "kubectl", "get", "deployment", "web", "-o", "jsonpath={.metadata.uid}"); got != uid {
			t.Errorf("the deployment's UID is %s, was %s", got, uid)
		}
		other.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=60s")
		// It was ready when it was kept; here its container is another.
		other.Eventually(t, contains("web-"), "kubectl", "exec", "deploy/web", "--", "hostname")
		other.Must(t, "kaji", "down", "--purge")
	}
}
