// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tools are the commonest commands of a shell, with their commonest options.
func tools() map[string]program {
	return map[string]program{
		"wget": wget, "curl": wget, "dig": dig, "nslookup": dig, "nc": nc,
		"cat": cat, "ls": ls, "sleep": sleep, "env": env, "printenv": env, "hostname": hostnameTool, "date": date, "id": id, "whoami": whoami,
		"mkdir": mkdir, "rm": rm, "touch": touch, "cp": cp, "mv": mv, "ln": ln, "head": head, "tail": tail, "wc": wc, "grep": grep,
		"ps": ps, "kill": kill, "seq": seq, "tee": tee, "stat": stat, "chmod": chmod, "uname": uname, "dd": dd, "mount": mounts,
		"tar": tarTool, "sort": sortTool,
		"echo": builtin("echo"), "printf": builtin("printf"), "true": builtin("true"), "false": builtin("false"), "test": builtin("test"), "pwd": builtin("pwd"),
	}
}

// flagsAndRest parts leading options from the arguments.
func flagsAndRest(args []string) (options string, rest []string) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		options, args = options+args[0][1:], args[1:]
	}
	return options, args
}

// eachInput calls f with every file named, or with stdin if there is none.
func eachInput(name string, s *stdio, files []string, f func(io.Reader) error) int {
	if len(files) == 0 {
		files = []string{"-"}
	}
	code := 0
	for _, file := range files {
		in := s.in
		if file != "-" {
			opened, err := os.Open(s.path(file))
			if err != nil {
				code = s.fail(name, err)
				continue
			}
			defer opened.Close()
			in = opened
		}
		if err := f(in); err != nil {
			code = s.fail(name, err)
		}
	}
	return code
}

func cat(_ context.Context, s *stdio, args []string) int {
	_, files := flagsAndRest(args)
	return eachInput("cat", s, files, func(in io.Reader) error { _, err := io.Copy(s.out, in); return err })
}

func ls(_ context.Context, s *stdio, args []string) int {
	options, paths := flagsAndRest(args)
	if len(paths) == 0 {
		paths = []string{"."}
	}
	code := 0
	for _, p := range paths {
		info, err := os.Stat(s.path(p))
		if err != nil {
			code = s.fail("ls", err)
			continue
		}
		entries := []fs.DirEntry{fs.FileInfoToDirEntry(info)}
		if info.IsDir() && !strings.Contains(options, "d") {
			if entries, err = os.ReadDir(s.path(p)); err != nil {
				code = s.fail("ls", err)
				continue
			}
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && !strings.Contains(options, "a") {
				continue
			}
			name := e.Name()
			if !info.IsDir() {
				name = p
			}
			if i, err := e.Info(); err == nil && strings.Contains(options, "l") {
				uid, gid := owner(i)
				fmt.Fprintf(s.out, "%s %4d %4d %10d %s %s\n", i.Mode(), uid, gid, i.Size(), i.ModTime().Format("Jan _2 15:04"), name)
				continue
			}
			fmt.Fprintln(s.out, name)
		}
	}
	return code
}

func owner(i fs.FileInfo) (uid, gid uint32) {
	if st, ok := i.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

func sleep(ctx context.Context, s *stdio, args []string) int {
	for _, a := range args {
		if a == "infinity" {
			<-ctx.Done()
			return 143
		}
		if n, err := strconv.ParseFloat(a, 64); err == nil {
			wait(ctx, time.Duration(n*float64(time.Second)))
		} else if d, err := time.ParseDuration(a); err == nil {
			wait(ctx, d)
		} else {
			return s.fail("sleep", fmt.Errorf("invalid number %q", a))
		}
	}
	if ctx.Err() != nil {
		return 143
	}
	return 0
}

func env(_ context.Context, s *stdio, args []string) int {
	for _, name := range args {
		if v := valueOf(s.env, name); v != "" {
			fmt.Fprintln(s.out, v)
			continue
		}
		return 1
	}
	if len(args) == 0 {
		fmt.Fprintln(s.out, strings.Join(s.env, "\n"))
	}
	return 0
}

func hostnameTool(_ context.Context, s *stdio, _ []string) int {
	fmt.Fprintln(s.out, hostname())
	return 0
}

func date(_ context.Context, s *stdio, args []string) int {
	now := time.Now().UTC()
	if len(args) > 0 && args[0] == "+%s" {
		fmt.Fprintln(s.out, now.Unix())
		return 0
	}
	fmt.Fprintln(s.out, now.Format("Mon Jan _2 15:04:05 UTC 2006"))
	return 0
}

func id(_ context.Context, s *stdio, args []string) int {
	switch options, _ := flagsAndRest(args); options {
	case "u":
		fmt.Fprintln(s.out, os.Getuid())
	case "g":
		fmt.Fprintln(s.out, os.Getgid())
	case "G":
		groups, _ := os.Getgroups()
		fmt.Fprintln(s.out, strings.Trim(fmt.Sprint(groups), "[]"))
	default:
		groups, _ := os.Getgroups()
		fmt.Fprintf(s.out, "uid=%d gid=%d groups=%s\n", os.Getuid(), os.Getgid(), strings.ReplaceAll(strings.Trim(fmt.Sprint(groups), "[]"), " ", ","))
	}
	return 0
}

func whoami(_ context.Context, s *stdio, _ []string) int {
	name := "root"
	if uid := os.Getuid(); uid != 0 {
		name = strconv.Itoa(uid)
	}
	fmt.Fprintln(s.out, name)
	return 0
}

// onEach calls f with every path and reports what fails.
func onEach(name string, s *stdio, paths []string, f func(path string) error) int {
	code := 0
	for _, p := range paths {
		if err := f(s.path(p)); err != nil {
			code = s.fail(name, err)
		}
	}
	return code
}

func mkdir(_ context.Context, s *stdio, args []string) int {
	options, paths := flagsAndRest(args)
	return onEach("mkdir", s, paths, func(p string) error {
		if strings.Contains(options, "p") {
			return os.MkdirAll(p, 0o755)
		}
		return os.Mkdir(p, 0o755)
	})
}

func rm(_ context.Context, s *stdio, args []string) int {
	options, paths := flagsAndRest(args)
	return onEach("rm", s, paths, func(p string) error {
		if strings.ContainsAny(options, "rR") {
			return os.RemoveAll(p)
		}
		if err := os.Remove(p); err != nil && !(os.IsNotExist(err) && strings.Contains(options, "f")) {
			return err
		}
		return nil
	})
}

func touch(_ context.Context, s *stdio, args []string) int {
	_, paths := flagsAndRest(args)
	return onEach("touch", s, paths, func(p string) error {
		file, err := os.OpenFile(p, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		now := time.Now()
		_ = file.Close()
		return os.Chtimes(p, now, now)
	})
}

// target is where a file goes: into a directory under its own name.
func (s *stdio) target(from, to string) string {
	to = s.path(to)
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		return filepath.Join(to, filepath.Base(from))
	}
	return to
}

func cp(_ context.Context, s *stdio, args []string) int {
	_, paths := flagsAndRest(args)
	if len(paths) < 2 {
		return s.fail("cp", fmt.Errorf("a source and a target are needed"))
	}
	to := paths[len(paths)-1]
	return onEach("cp", s, paths[:len(paths)-1], func(p string) error {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return os.CopyFS(s.target(p, to), os.DirFS(p))
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(s.target(p, to), data, info.Mode().Perm())
	})
}

func mv(_ context.Context, s *stdio, args []string) int {
	_, paths := flagsAndRest(args)
	if len(paths) < 2 {
		return s.fail("mv", fmt.Errorf("a source and a target are needed"))
	}
	to := paths[len(paths)-1]
	return onEach("mv", s, paths[:len(paths)-1], func(p string) error { return os.Rename(p, s.target(p, to)) })
}

func ln(_ context.Context, s *stdio, args []string) int {
	options, paths := flagsAndRest(args)
	if len(paths) != 2 {
		return s.fail("ln", fmt.Errorf("a source and a target are needed"))
	}
	link := os.Link
	from := s.path(paths[0])
	if strings.Contains(options, "s") {
		link, from = os.Symlink, paths[0]
	}
	if err := link(from, s.target(paths[0], paths[1])); err != nil {
		return s.fail("ln", err)
	}
	return 0
}

// lineCount reads "-n N" or "-N".
func lineCount(args []string) (n int, follow bool, files []string) {
	n = 10
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		option := args[0][1:]
		args = args[1:]
		if strings.Contains(option, "f") {
			follow = true
			continue
		}
		if option == "n" && len(args) > 0 {
			option, args = args[0], args[1:]
		}
		if v, err := strconv.Atoi(strings.TrimPrefix(option, "n")); err == nil {
			n = v
		}
	}
	return n, follow, args
}

func head(_ context.Context, s *stdio, args []string) int {
	n, _, files := lineCount(args)
	return eachInput("head", s, files, func(in io.Reader) error {
		lines := bufio.NewScanner(in)
		for i := 0; i < n && lines.Scan(); i++ {
			fmt.Fprintln(s.out, lines.Text())
		}
		return lines.Err()
	})
}

func tail(ctx context.Context, s *stdio, args []string) int {
	n, follow, files := lineCount(args)
	return eachInput("tail", s, files, func(in io.Reader) error {
		var last []string
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if last = append(last, lines.Text()); len(last) > n {
				last = last[1:]
			}
		}
		for _, l := range last {
			fmt.Fprintln(s.out, l)
		}
		for follow && ctx.Err() == nil {
			if copied, err := io.Copy(s.out, in); err != nil {
				return err
			} else if copied == 0 {
				wait(ctx, 200*time.Millisecond)
			}
		}
		return lines.Err()
	})
}

func wc(_ context.Context, s *stdio, args []string) int {
	options, files := flagsAndRest(args)
	return eachInput("wc", s, files, func(in io.Reader) error {
		data, err := io.ReadAll(in)
		text := string(data)
		counts := map[rune]int{'l': strings.Count(text, "\n"), 'w': len(strings.Fields(text)), 'c': len(data)}
		if options == "" {
			fmt.Fprintln(s.out, counts['l'], counts['w'], counts['c'])
			return err
		}
		for _, o := range options {
			fmt.Fprintln(s.out, counts[o])
		}
		return err
	})
}

func grep(_ context.Context, s *stdio, args []string) int {
	options, rest := flagsAndRest(args)
	if len(rest) == 0 {
		return s.fail("grep", fmt.Errorf("a pattern is needed"))
	}
	expression := rest[0]
	if strings.Contains(options, "F") {
		expression = regexp.QuoteMeta(expression)
	}
	if strings.Contains(options, "i") {
		expression = "(?i)" + expression
	}
	pattern, err := regexp.Compile(expression)
	if err != nil {
		s.fail("grep", err)
		return 2
	}
	found := 0
	code := eachInput("grep", s, rest[1:], func(in io.Reader) error {
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if pattern.MatchString(lines.Text()) == strings.Contains(options, "v") {
				continue
			}
			if found++; !strings.ContainsAny(options, "qc") {
				fmt.Fprintln(s.out, lines.Text())
			}
		}
		return lines.Err()
	})
	if strings.Contains(options, "c") {
		fmt.Fprintln(s.out, found)
	}
	if found == 0 {
		return max(code, 1)
	}
	return code
}

func ps(_ context.Context, s *stdio, _ []string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return s.fail("ps", err)
	}
	fmt.Fprintln(s.out, "  PID COMMAND")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		fmt.Fprintf(s.out, "%5d %s\n", pid, strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
	}
	return 0
}

func kill(_ context.Context, s *stdio, args []string) int {
	signal := syscall.SIGTERM
	options, pids := flagsAndRest(args)
	if options != "" {
		named := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "QUIT": syscall.SIGQUIT}
		if n, err := strconv.Atoi(options); err == nil {
			signal = syscall.Signal(n)
		} else if signal = named[strings.TrimPrefix(options, "SIG")]; signal == 0 {
			return s.fail("kill", fmt.Errorf("unknown signal %q", options))
		}
	}
	for _, p := range pids {
		pid, err := strconv.Atoi(p)
		if err == nil {
			err = syscall.Kill(pid, signal)
		}
		if err != nil {
			return s.fail("kill", fmt.Errorf("%s: %w", p, err))
		}
	}
	return 0
}

func seq(_ context.Context, s *stdio, args []string) int {
	first, step, last := 1, 1, 0
	var err error
	read := func(to *int, a string) {
		if err == nil {
			*to, err = strconv.Atoi(a)
		}
	}
	switch len(args) {
	case 1:
		read(&last, args[0])
	case 2:
		read(&first, args[0])
		read(&last, args[1])
	case 3:
		read(&first, args[0])
		read(&step, args[1])
		read(&last, args[2])
	default:
		err = fmt.Errorf("one to three numbers are needed")
	}
	if err != nil || step == 0 {
		return s.fail("seq", fmt.Errorf("%w", err))
	}
	for i := first; step > 0 && i <= last || step < 0 && i >= last; i += step {
		fmt.Fprintln(s.out, i)
	}
	return 0
}

func tee(_ context.Context, s *stdio, args []string) int {
	options, files := flagsAndRest(args)
	to := []io.Writer{s.out}
	for _, f := range files {
		mode := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		if strings.Contains(options, "a") {
			mode = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		}
		file, err := os.OpenFile(s.path(f), mode, 0o644)
		if err != nil {
			return s.fail("tee", err)
		}
		defer file.Close()
		to = append(to, file)
	}
	if _, err := io.Copy(io.MultiWriter(to...), s.in); err != nil {
		return s.fail("tee", err)
	}
	return 0
}

func stat(_ context.Context, s *stdio, args []string) int {
	format := ""
	if len(args) > 1 && args[0] == "-c" {
		format, args = args[1], args[2:]
	}
	return onEach("stat", s, args, func(p string) error {
		i, err := os.Stat(p)
		if err != nil {
			return err
		}
		uid, gid := owner(i)
		if format == "" {
			format = "%n %s %a %u %g"
		}
		fmt.Fprintln(s.out, strings.NewReplacer("%n", p, "%s", strconv.FormatInt(i.Size(), 10), "%a", fmt.Sprintf("%o", i.Mode().Perm()),
			"%u", fmt.Sprint(uid), "%g", fmt.Sprint(gid)).Replace(format))
		return nil
	})
}

func chmod(_ context.Context, s *stdio, args []string) int {
	if len(args) < 2 {
		return s.fail("chmod", fmt.Errorf("a mode and a file are needed"))
	}
	mode, err := strconv.ParseUint(args[0], 8, 32)
	if err != nil {
		return s.fail("chmod", err)
	}
	return onEach("chmod", s, args[1:], func(p string) error { return os.Chmod(p, fs.FileMode(mode)) })
}

func uname(_ context.Context, s *stdio, args []string) int {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return s.fail("uname", err)
	}
	text := func(field [65]int8) string {
		var b strings.Builder
		for _, c := range field {
			if c == 0 {
				break
			}
			b.WriteByte(byte(c))
		}
		return b.String()
	}
	if len(args) > 0 && args[0] != "-s" {
		fmt.Fprintln(s.out, text(u.Sysname), text(u.Nodename), text(u.Release), text(u.Machine))
		return 0
	}
	fmt.Fprintln(s.out, text(u.Sysname))
	return 0
}

// dd copies: if=FILE of=FILE bs=N[kM] count=N.
func dd(_ context.Context, s *stdio, args []string) int {
	in, out, size, count := s.in, s.out, int64(512), int64(-1)
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "if":
			file, err := os.Open(s.path(value))
			if err != nil {
				return s.fail("dd", err)
			}
			defer file.Close()
			in = file
		case "of":
			file, err := os.Create(s.path(value))
			if err != nil {
				return s.fail("dd", err)
			}
			defer file.Close()
			out = file
		case "bs", "count":
			factor := int64(1)
			switch {
			case strings.HasSuffix(value, "k"), strings.HasSuffix(value, "K"):
				factor = 1 << 10
			case strings.HasSuffix(value, "M"):
				factor = 1 << 20
			}
			n, err := strconv.ParseInt(strings.TrimRight(value, "kKM"), 10, 64)
			if err != nil {
				return s.fail("dd", err)
			}
			if name == "bs" {
				size = n * factor
			} else {
				count = n * factor
			}
		}
	}
	if count >= 0 {
		in = io.LimitReader(in, size*count)
	}
	if _, err := io.Copy(out, in); err != nil {
		return s.fail("dd", err)
	}
	return 0
}

func mounts(_ context.Context, s *stdio, _ []string) int {
	return cat(context.Background(), s, []string{"/proc/mounts"})
}
