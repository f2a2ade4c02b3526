// Drives containerd's task service for hack/bench-shim: Berth's shim and runtime beside containerd's shim and runc, in
// turns, and prints tables of medians, ratios and goals.
//
// It keeps one connection and calls the service itself, where `ctr` would spend 30 ms on its own start at each call.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
)

const specType = "types.containerd.io/opencontainers/runtime-spec/1/"

// peers are the runtimes as containerd names them; the first is ours.
var peers = [2]string{"io.containerd.berth.v1", "io.containerd.runc.v2"}

type bench struct {
	ctx        context.Context
	containers containers.ContainersClient
	tasks      tasks.TasksClient
	work       string
	namespace  string // of containerd's, named as the folder, so that two benches do not meet
	spec       map[string]any
	rounds     int
	number     int
}

func check(err error, format string, words ...any) {
	if err != nil {
		log.Fatalf("%s: %v", fmt.Sprintf(format, words...), err)
	}
}

// must is check for calls whose error says by itself what was tried.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("task-client: ")
	if len(os.Args) != 3 {
		log.Fatal("usage: task-client FOLDER ROUNDS; FOLDER has c.sock, rootfs and config.json")
	}
	work := os.Args[1]
	rounds, err := strconv.Atoi(os.Args[2])
	check(err, "the number of rounds %q", os.Args[2])
	connection, err := grpc.NewClient("unix://"+filepath.Join(work, "c.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err, "connect to containerd")
	b := &bench{
		ctx:        metadata.AppendToOutgoingContext(context.Background(), "containerd-namespace", filepath.Base(work)),
		containers: containers.NewContainersClient(connection),
		tasks:      tasks.NewTasksClient(connection),
		work:       work,
		namespace:  filepath.Base(work),
		rounds:     rounds,
	}
	check(json.Unmarshal(must(os.ReadFile(filepath.Join(work, "config.json"))), &b.spec), "config.json")

	fmt.Println("| | Berth | runc's shim | ratio | goal |")
	fmt.Println("|---|---|---|---|---|")
	b.timeTasks()
	b.timeExecs()
	b.measureOutput()
	b.countResources()
	b.growTo(500)
}

// ---- containers

// container is a container of containerd's, with the folders of an overlay of its own over the common rootfs.
type container struct {
	*bench
	id             string
	stdout, stderr string
	pid            uint32 // of its init
}

func (b *bench) container(peer int, args ...string) *container {
	b.number++
	c := &container{bench: b, id: fmt.Sprintf("c%d", b.number)}
	for _, folder := range []string{"upper", "work"} {
		check(os.MkdirAll(c.layer(folder), 0o755), "make a folder of %s's overlay", c.id)
	}
	b.spec["process"].(map[string]any)["args"] = args
	b.spec["linux"].(map[string]any)["cgroupsPath"] = "/" + b.namespace + "/" + c.id
	spec := &anypb.Any{TypeUrl: specType + "Spec", Value: must(json.Marshal(b.spec))}
	_, err := b.containers.Create(b.ctx, &containers.CreateContainerRequest{Container: &containers.Container{
		ID: c.id, Runtime: &containers.Container_Runtime{Name: peers[peer]}, Spec: spec,
	}})
	check(err, "make container %s", c.id)
	return c
}

func (c *container) layer(name string) string { return filepath.Join(c.work, "layers", c.id, name) }

// fifo makes one that is open here, so that no shim waits for its reader.
func (b *bench) fifo(name string) *os.File {
	path := filepath.Join(b.work, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil && err != syscall.EEXIST {
		log.Fatalf("make the fifo %s: %v", path, err)
	}
	return must(os.OpenFile(path, os.O_RDWR, 0))
}

func (c *container) create() {
	overlay := &types.Mount{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + filepath.Join(c.work, "rootfs"), "upperdir=" + c.layer("upper"), "workdir=" + c.layer("work"),
	}}
	answer, err := c.tasks.Create(c.ctx, &tasks.CreateTaskRequest{
		ContainerID: c.id, Rootfs: []*types.Mount{overlay}, Stdout: c.stdout, Stderr: c.stderr,
	})
	check(err, "create task %s", c.id)
	c.pid = answer.Pid
}

// started starts the task, or a process of `exec`, and tells its end, which is waited for since before the start.
func (c *container) started(exec string) <-chan uint32 {
	ended := make(chan uint32, 1)
	stream := make(chan struct{})
	go func() {
		close(stream)
		answer, err := c.tasks.Wait(c.ctx, &tasks.WaitRequest{ContainerID: c.id, ExecID: exec})
		check(err, "wait for %s %s", c.id, exec)
		ended <- answer.ExitStatus
	}()
	<-stream
	_, err := c.tasks.Start(c.ctx, &tasks.StartRequest{ContainerID: c.id, ExecID: exec})
	check(err, "start %s %s", c.id, exec)
	return ended
}

func (c *container) delete() {
	_, err := c.tasks.Delete(c.ctx, &tasks.DeleteTaskRequest{ContainerID: c.id})
	check(err, "delete task %s", c.id)
}

func (c *container) forget() {
	_, err := c.containers.Delete(c.ctx, &containers.DeleteContainerRequest{ID: c.id})
	check(err, "delete container %s", c.id)
	check(os.RemoveAll(filepath.Dir(c.layer("upper"))), "remove the overlay of %s", c.id)
}

func (c *container) kill() {
	_, err := c.tasks.Kill(c.ctx, &tasks.KillRequest{ContainerID: c.id, Signal: uint32(syscall.SIGKILL)})
	check(err, "kill %s", c.id)
}

// sleeper is a container that runs until its end is asked for.
func (b *bench) sleeper(peer int) (*container, func()) {
	c := b.container(peer, "/bin/sleep", "100000")
	c.create()
	ended := c.started("")
	return c, func() {
		c.kill()
		<-ended
		c.delete()
		c.forget()
	}
}

func succeeded(status uint32, what string) {
	if status != 0 {
		log.Fatalf("%s ended with status %d", what, status)
	}
}

// ---- times

type times []time.Duration

func (t times) median() float64 {
	sorted := slices.Sorted(slices.Values(t))
	return float64(sorted[len(sorted)/2]) / float64(time.Millisecond)
}

func row(name string, ours, theirs times, goal string) {
	fmt.Printf("| %s | %.2f ms | %.2f ms | %.2f | %s |\n", name, ours.median(), theirs.median(), ours.median()/theirs.median(), goal)
}

func (b *bench) timeTasks() {
	var whole, create, start, remove [2]times
	out, errors := b.fifo("stdout"), b.fifo("stderr")
	defer out.Close()
	defer errors.Close()
	for i := range b.rounds*10 + 2 {
		for peer := range peers {
			c := b.container(peer, "/bin/true")
			c.stdout, c.stderr = out.Name(), errors.Name()
			stamps := [4]time.Time{time.Now()}
			c.create()
			stamps[1] = time.Now()
			succeeded(<-c.started(""), "/bin/true")
			stamps[2] = time.Now()
			c.delete()
			stamps[3] = time.Now()
			c.forget()
			if i < 2 {
				continue // until everything is in the caches
			}
			whole[peer] = append(whole[peer], stamps[3].Sub(stamps[0]))
			create[peer] = append(create[peer], stamps[1].Sub(stamps[0]))
			start[peer] = append(start[peer], stamps[2].Sub(stamps[1]))
			remove[peer] = append(remove[peer], stamps[3].Sub(stamps[2]))
		}
	}
	row("create + start + delete of /bin/true", whole[0], whole[1], "0.35")
	row("… create", create[0], create[1], "")
	row("… start, and until its end is told", start[0], start[1], "")
	row("… delete", remove[0], remove[1], "")
}

func (b *bench) timeExecs() {
	var all [2]times
	var alive [2]*container
	for peer := range peers {
		c, end := b.sleeper(peer)
		defer end()
		alive[peer] = c
	}
	out, errors := b.fifo("stdout"), b.fifo("stderr")
	defer out.Close()
	defer errors.Close()
	process := b.spec["process"].(map[string]any)
	process["args"] = []string{"/bin/true"}
	spec := &anypb.Any{TypeUrl: specType + "Process", Value: must(json.Marshal(process))}
	for i := range b.rounds*10 + 2 {
		for peer, c := range alive {
			begin := time.Now()
			_, err := b.tasks.Exec(b.ctx, &tasks.ExecProcessRequest{
				ContainerID: c.id, ExecID: "e", Spec: spec, Stdout: out.Name(), Stderr: errors.Name(),
			})
			check(err, "exec in %s", c.id)
			succeeded(<-c.started("e"), "exec of /bin/true")
			_, err = b.tasks.DeleteProcess(b.ctx, &tasks.DeleteProcessRequest{ContainerID: c.id, ExecID: "e"})
			check(err, "delete the exec of %s", c.id)
			if i >= 2 {
				all[peer] = append(all[peer], time.Since(begin))
			}
		}
	}
	row("exec + start + delete of /bin/true", all[0], all[1], "0.35")
}

// ---- output

// flow is one stream of output: its time, and the processor time of the shim meanwhile.
type flow struct{ took, busy time.Duration }

func (b *bench) measureOutput() {
	size := int(must(os.Stat(filepath.Join(b.work, "rootfs/output"))).Size())
	log := "/run/log" // of a tmpfs: the shims are measured, not the disk
	kinds := []struct {
		name, goal string
		targets    [2]string
	}{
		{"through a fifo", "1.50", [2]string{filepath.Join(b.work, "stdout"), filepath.Join(b.work, "stdout")}},
		{"into a file", "1.50", [2]string{"file://" + log, "file://" + log}},
		{"into a json log (a plain file)", "", [2]string{"json-file://" + log, "file://" + log}},
	}
	for _, kind := range kinds {
		var flows [2][]flow
		for range max(b.rounds, 3) {
			for peer := range peers {
				flows[peer] = append(flows[peer], b.output(peer, kind.targets[peer], size))
				os.Remove(log)
			}
		}
		var speeds, loads [2]float64
		for peer := range peers {
			slices.SortFunc(flows[peer], func(a, b flow) int { return int(a.took - b.took) })
			middle := flows[peer][len(flows[peer])/2]
			speeds[peer] = float64(size) / 1e6 / middle.took.Seconds()
			loads[peer] = middle.busy.Seconds() * 1000 / (float64(size) / 1e9)
		}
		fmt.Printf("| output %s | %.0f MB/s | %.0f MB/s | %.2f | %s |\n", kind.name, speeds[0], speeds[1], speeds[0]/speeds[1], kind.goal)
		fmt.Printf("| … processor time of the shim | %.0f ms/GB | %.0f ms/GB | %.2f | |\n", loads[0], loads[1], loads[0]/loads[1])
	}
}

func (b *bench) output(peer int, target string, size int) flow {
	c := b.container(peer, "/bin/cat", "/output")
	c.stdout, c.stderr = target, target // containerd's shim takes no file for one of them alone
	read := make(chan struct{})
	if strings.HasPrefix(target, "/") {
		fifo := b.fifo("stdout")
		defer fifo.Close()
		go func() {
			chunk := make([]byte, 64<<10)
			for left := size; left > 0; {
				left -= must(fifo.Read(chunk))
			}
			close(read)
		}()
	} else {
		close(read)
	}
	c.create()
	shim := c.shim()
	busy := shim.busy()
	begin := time.Now()
	ended := c.started("")
	<-read
	succeeded(<-ended, "/bin/cat")
	f := flow{time.Since(begin), 0}
	f.busy = shim.busy() - busy
	c.delete()
	c.forget()
	return f
}

// ---- processes

// shim is the process id of one.
type shim int

// shim is the parent of the container's init.
func (c *container) shim() shim {
	status := must(os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid)))
	return shim(number(string(status), "PPid:"))
}

func (s shim) path(file string) string { return fmt.Sprintf("/proc/%d/%s", s, file) }

// eachThread gives the text of a file of each thread.
func (s shim) eachThread(file string) []string {
	var texts []string
	for _, path := range must(filepath.Glob(s.path("task/*/" + file))) {
		if text, err := os.ReadFile(path); err == nil { // it may have ended
			texts = append(texts, string(text))
		}
	}
	return texts
}

func (s shim) busy() (busy time.Duration) {
	for _, text := range s.eachThread("schedstat") {
		busy += time.Duration(must(strconv.Atoi(strings.Fields(text)[0])))
	}
	return busy
}

func (s shim) switches() (count int) {
	for _, text := range s.eachThread("status") {
		count += number(text, "voluntary_ctxt_switches:") + number(text, "nonvoluntary_ctxt_switches:")
	}
	return count
}

func (s shim) pss() int {
	return number(string(must(os.ReadFile(s.path("smaps_rollup")))), "Pss:")
}

func number(text, key string) int {
	_, rest, found := strings.Cut("\n"+text, "\n"+key)
	if !found {
		log.Fatalf("no %q in %q", key, text)
	}
	return must(strconv.Atoi(strings.Fields(rest)[0]))
}

func (b *bench) countResources() {
	const count, idle = 100, 10
	var shims [2][]shim
	for range count {
		for peer := range peers {
			c, end := b.sleeper(peer)
			defer end()
			shims[peer] = append(shims[peer], c.shim())
		}
	}
	sum := func(of func(shim) int) (sums [2]float64) {
		for peer := range peers {
			for _, s := range shims[peer] {
				sums[peer] += float64(of(s)) / count
			}
		}
		return sums
	}
	time.Sleep(2 * time.Second) // the starts are over
	before := sum(shim.switches)
	time.Sleep(idle * time.Second)
	after := sum(shim.switches)
	pss := sum(shim.pss)
	threads := sum(func(s shim) int { return len(s.eachThread("comm")) })
	fmt.Printf("| PSS of a shim, %d containers | %.0f kB | %.0f kB | %.2f | 1000 kB |\n", count, pss[0], pss[1], pss[0]/pss[1])
	fmt.Printf("| threads of a shim | %.1f | %.1f | %.2f | 4 |\n", threads[0], threads[1], threads[0]/threads[1])
	fmt.Printf("| wake-ups of an idle shim, a second | %.2f | %.2f | | 0 |\n", (after[0]-before[0])/idle, (after[1]-before[1])/idle)
}

// growTo starts many containers, first ours alone, then theirs. The first are timed again when all are gone, so that a
// machine which gets busier meanwhile does not look like growth.
func (b *bench) growTo(count int) {
	const some = 25
	var first, last [2]times
	for peer := range peers {
		var all, again times
		var ends []func()
		grow := func(to *times, count int) {
			for range count {
				c := b.container(peer, "/bin/sleep", "100000")
				begin := time.Now()
				c.create()
				ended := c.started("")
				*to = append(*to, time.Since(begin))
				ends = append(ends, func() { c.kill(); <-ended; c.delete(); c.forget() })
			}
		}
		shrink := func() {
			for _, end := range ends {
				end()
			}
			ends = nil
		}
		grow(&all, count)
		shrink()
		grow(&again, some)
		shrink()
		first[peer], last[peer] = append(again, all[:some]...), all[count-some:]
	}
	row(fmt.Sprintf("create + start, the first of %d containers", count), first[0], first[1], "")
	row(fmt.Sprintf("… the %dth", count), last[0], last[1], "")
	fmt.Printf("| … of the first | %.2f | %.2f | | 1.20 |\n", last[0].median()/first[0].median(), last[1].median()/first[1].median())
}
