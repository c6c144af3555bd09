// SPDX-License-Identifier: Apache-2.0

// Command box is what the tests of container runtimes run inside containers: a
// static program with a few verbs, so that no image has to come from anywhere.
//
//	box echo <text>...         writes the words, and a newline
//	box err <text>             writes to standard error
//	box cat [file]             copies a file or standard input to standard output
//	box write <file> <text>    writes a file
//	box remember <file>        reads and removes a file, writes "ready", waits for SIGTERM and writes what was in it
//	box sleep                  writes "ready", waits for SIGTERM, then exits with 0
//	box stubborn               ignores SIGTERM, writes "ready" and waits
//	box exit <code>            ends
//	box status <key>           prints a line of /proc/self/status
//	box id                     prints uid, gid and groups
//	box env <name>             prints a variable
//	box pwd | hostname | pids  prints one of these
//	box ls <dir>               lists names
//	box mounts <path>          prints the line of /proc/self/mountinfo of a mount point
//	box tty                    prints the size of the terminal
//	box count <n>              prints n numbered lines
//	box eat <MiB>              touches that much memory, then waits
//	box serve <port>           answers each TCP connection with what it sends
//	box then <verb>... ; ...   runs several, up to the first that fails
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"sleep"}
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "box:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	verb, rest := args[0], args[1:]
	arg := func(i int) string {
		if i < len(rest) {
			return rest[i]
		}
		return ""
	}
	switch verb {
	case "then":
		for part := range strings.SplitSeq(strings.Join(rest, "\x00"), "\x00;\x00") {
			if err := run(strings.Split(part, "\x00")); err != nil {
				return err
			}
		}
	case "echo":
		fmt.Println(strings.Join(rest, " "))
	case "err":
		fmt.Fprintln(os.Stderr, strings.Join(rest, " "))
	case "cat":
		in := os.Stdin
		if len(rest) > 0 {
			f, err := os.Open(rest[0])
			if err != nil {
				return err
			}
			in = f
		}
		_, err := io.Copy(os.Stdout, in)
		return err
	case "write":
		return os.WriteFile(arg(0), []byte(arg(1)), 0o644)
	case "remember":
		raw, err := os.ReadFile(arg(0))
		if err != nil {
			return err
		}
		if err := os.Remove(arg(0)); err != nil {
			return err
		}
		if err := run([]string{"sleep"}); err != nil {
			return err
		}
		fmt.Printf("remembered %s\n", raw)
	case "sleep":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "exit":
		code, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		os.Exit(code)
	case "status":
		raw, err := os.ReadFile("/proc/self/status")
		for line := range strings.SplitSeq(string(raw), "\n") {
			if strings.HasPrefix(line, arg(0)+":") {
				fmt.Println(line)
			}
		}
		return err
	case "id":
		groups, err := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups)
		return err
	case "env":
		fmt.Println(os.Getenv(arg(0)))
	case "pwd":
		dir, err := os.Getwd()
		fmt.Println(dir)
		return err
	case "hostname":
		name, err := os.Hostname()
		fmt.Println(name)
		return err
	case "pids":
		dirs, err := filepath.Glob("/proc/[0-9]*")
		fmt.Println(len(dirs))
		return err
	case "ls":
		entries, err := os.ReadDir(arg(0))
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	case "mounts":
		raw, err := os.ReadFile("/proc/self/mountinfo")
		for line := range strings.SplitSeq(string(raw), "\n") {
			if f := strings.Fields(line); len(f) > 5 && f[4] == arg(0) {
				fmt.Println(line)
			}
		}
		return err
	case "tty":
		var size [4]uint16
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
			return errno
		}
		fmt.Println(size[0], size[1])
	case "count":
		n, err := strconv.Atoi(arg(0))
		for i := range n {
			fmt.Println("line", i)
		}
		return err
	case "eat":
		n, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		held := bytes.Repeat([]byte{1}, n<<20)
		fmt.Println("ate", len(held)>>20)
		return run([]string{"sleep"})
	case "serve":
		l, err := net.Listen("tcp", ":"+arg(0))
		if err != nil {
			return err
		}
		fmt.Println("listening")
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
	return nil
}
