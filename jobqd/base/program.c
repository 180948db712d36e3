/* program.c: see program.h. What a child calls between fork and exit makes system calls
 * and nothing else. */
#include "jobqd/base/program.h"

#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* HEAD: what the kernel reads of a file to see what it is. DEPTH: interpreters that are
 * scripts themselves. */
enum { HEAD = 256, DEPTH = 4, HEADERS_MAX = 64 };
/* A pipe may have taken a file's place since we looked. */
enum { READING = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK };

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64, OTHER_MACHINE = EM_386 };
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64, OTHER_MACHINE = EM_ARM };
#else
enum { MACHINE = EM_NONE, OTHER_MACHINE = EM_NONE }; /* whatever there is may run */
#endif

/* ---- words, without the C library's printf ---- */

static void
add(char why[PROGRAM_WHY], const char *text)
{
    size_t len = strlen(why);
    size_t more = strnlen(text, PROGRAM_WHY - 1 - len);
    memcpy(why + len, text, more);
    why[len + more] = '\0';
}

static bool
fault(char why[PROGRAM_WHY], const char *a, const char *b, const char *c)
{
    add(why, a);
    add(why, b);
    add(why, c);
    return true;
}

/* ---- the file ---- */

static bool
is_noexec(const char *path)
{
    enum { ST_NOEXEC_FLAG = 8 };
    struct statfs info;
    return statfs(path, &info) == 0 && (info.f_flags & ST_NOEXEC_FLAG);
}

static bool
file_fault(const char *path, char why[PROGRAM_WHY])
{
    struct stat info;
    if (stat(path, &info) != 0)
        return fault(why, strerrordesc_np(errno), "", "");
    if (S_ISDIR(info.st_mode))
        return fault(why, "it is a folder", "", "");
    if (!S_ISREG(info.st_mode))
        return fault(why, "it is not a file", "", "");
    if (is_noexec(path))
        return fault(why, "its file system is mounted noexec", "", "");
    if (access(path, X_OK) != 0)
        return fault(why, "it is not executable (chmod +x)", "", "");
    return false;
}

/* ---- programs ---- */

/* The loader that the program names, into loader; false: it names none. */
static bool
find_loader(int fd, const Elf64_Ehdr *header, char loader[HEAD])
{
    for (int i = 0; i < header->e_phnum && i < HEADERS_MAX; i++) {
        Elf64_Phdr part;
        off_t at = (off_t)header->e_phoff + i * (off_t)sizeof part;
        if (pread(fd, &part, sizeof part, at) != (ssize_t)sizeof part)
            return false;
        if (part.p_type != PT_INTERP || part.p_filesz >= HEAD)
            continue;
        ssize_t n = pread(fd, loader, part.p_filesz, (off_t)part.p_offset);
        loader[n > 0 ? n : 0] = '\0';
        return n > 0;
    }
    return false;
}

static bool
elf_fault(int fd, const char *head, size_t len, char why[PROGRAM_WHY])
{
    Elf64_Ehdr header;
    char loader[HEAD];
    if (len < sizeof header || MACHINE == EM_NONE)
        return false;
    memcpy(&header, head, sizeof header);
    if (header.e_machine != MACHINE && header.e_machine != OTHER_MACHINE)
        return fault(why, "it is built for another kind of processor", "", "");
    if (header.e_ident[EI_CLASS] != ELFCLASS64)
        return false;
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return fault(why, "it is an object file, not a program", "", "");
    if (find_loader(fd, &header, loader) && access(loader, X_OK) != 0)
        return fault(why, "its loader ", loader, " is missing");
    return false;
}

/* ---- scripts ---- */

static bool
is_on_path(const char *name, const char *search)
{
    char path[PATH_MAX];
    struct stat info;
    for (const char *at = search; at;
         at = at[strcspn(at, ":")] ? strchr(at, ':') + 1 : NULL) {
        size_t len = strcspn(at, ":");
        if (len + strlen(name) + 3 > sizeof path)
            continue;
        memcpy(path, at, len);
        if (len == 0)
            path[len++] = '.'; /* an empty one is the working directory */
        path[len] = '/';
        strcpy(path + len + 1, name);
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* `#!/usr/bin/env NAME`: the kernel gives env all that follows as one word. */
static bool
env_fault(const char *word, const char *search, char why[PROGRAM_WHY])
{
    if (*word == '\0' || *word == '-' || strchr(word, '=') || strchr(word, '/'))
        return false;
    if (strpbrk(word, " \t"))
        return fault(why, "env would look for a program called \"", word,
                     "\": use env -S to pass several words");
    if (search && !is_on_path(word, search))
        return fault(why, "its interpreter ", word, " is not on PATH");
    return false;
}

static bool fault_of(const char *path, const char *search, int depth,
                     char why[PROGRAM_WHY]);

static bool
interpreter_fault(const char *interpreter, const char *word, const char *search,
                  int depth, char why[PROGRAM_WHY])
{
    char inner[PROGRAM_WHY] = "";
    const char *slash = strrchr(interpreter, '/');
    if (slash && strcmp(slash, "/env") == 0 && env_fault(word, search, why))
        return true;
    if (*interpreter != '/' || depth == 0 ||
        !fault_of(interpreter, NULL, depth - 1, inner))
        return false;
    fault(why, "its interpreter ", interpreter, ": ");
    add(why, inner);
    return true;
}

/* head: the file's first bytes, behind the #!, as a string. cut: the kernel reads no more
 * of it. It refuses a line whose interpreter may go on behind that; words that are cut
 * are the interpreter's matter. */
static bool
script_fault(char *head, bool cut, const char *search, int depth, char why[PROGRAM_WHY])
{
    char *end = strchr(head, '\n');
    bool whole = end || !cut;
    const char *first = head + strspn(head, " \t");
    if (!whole && *first && first[strcspn(first, " \t")] == '\0')
        return fault(why,
                     "its interpreter's path is longer than the part of the first line "
                     "that the kernel reads",
                     "", "");
    end = end ? end : head + strlen(head);
    *end = '\0';
    if (whole && end > head && end[-1] == '\r')
        return fault(why,
                     "its first line ends in a carriage return, which the kernel takes "
                     "as part of the interpreter's name: save it with Unix line endings",
                     "", "");
    while (end > head && isblank((unsigned char)end[-1]))
        *--end = '\0';
    char *interpreter = head + strspn(head, " \t");
    if (*interpreter == '\0')
        return fault(why, "its #! names no interpreter", "", "");
    char *word = interpreter + strcspn(interpreter, " \t");
    if (*word != '\0')
        *word++ = '\0';
    word += strspn(word, " \t");
    return interpreter_fault(interpreter, word, search, depth, why);
}

/* ---- either ---- */

static bool
content_fault(int fd, const char *search, int depth, char why[PROGRAM_WHY])
{
    char head[HEAD + 1];
    ssize_t n = pread(fd, head, HEAD, 0);
    if (n < 0)
        return false;
    head[n] = '\0';
    if (n == 0)
        return fault(why, "it is empty", "", "");
    if (memcmp(head, "#!", 2) == 0)
        return script_fault(head + 2, n == HEAD, search, depth, why);
    if (n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
        return elf_fault(fd, head, (size_t)n, why);
    if (strncmp(head, "\xef\xbb\xbf#!", 5) == 0)
        return fault(why, "it has a byte order mark before its #!: save it without one",
                     "", "");
    return fault(why,
                 "it is neither an executable binary nor a script that begins with "
                 "#! and its interpreter, such as #!/bin/sh",
                 "", "");
}

static bool
fault_of(const char *path, const char *search, int depth, char why[PROGRAM_WHY])
{
    if (file_fault(path, why))
        return true;
    int fd = open(path, READING);
    if (fd < 0)
        return false; /* it can be executed without being read */
    bool found = content_fault(fd, search, depth, why);
    close(fd);
    return found;
}

enum program_fault
program_fault(const char *path, const char *search, char why[PROGRAM_WHY])
{
    struct stat info;
    why[0] = '\0';
    if (!fault_of(path, search, DEPTH, why))
        return PROGRAM_SOUND;
    return stat(path, &info) != 0 ? PROGRAM_MISSING : PROGRAM_FAULTY;
}

const char *
program_default_path(void)
{
    static char path[128];
    if (confstr(_CS_PATH, path, sizeof path) > sizeof path)
        return "/bin:/usr/bin";
    return path;
}

/* ---- formats that this kernel was told of ---- */

struct format {
    bool enabled;
    char extension[64]; /* "" or with its dot */
    unsigned offset;
    unsigned char magic[128], mask[128];
    size_t len; /* of magic */
};

static size_t
read_hex(const char *text, unsigned char *out, size_t most)
{
    size_t n = 0;
    unsigned value;
    while (n < most && sscanf(text + 2 * n, "%2x", &value) == 1)
        out[n++] = (unsigned char)value;
    return n;
}

static void
read_format(FILE *file, struct format *format)
{
    char line[512], text[300];
    memset(format, 0, sizeof *format);
    memset(format->mask, 0xff, sizeof format->mask);
    while (fgets(line, sizeof line, file)) {
        if (strcmp(line, "enabled\n") == 0)
            format->enabled = true;
        else if (sscanf(line, "extension %63s", format->extension) == 1)
            continue;
        else if (sscanf(line, "offset %u", &format->offset) == 1)
            continue;
        else if (sscanf(line, "magic %299s", text) == 1)
            format->len = read_hex(text, format->magic, sizeof format->magic);
        else if (sscanf(line, "mask %299s", text) == 1)
            read_hex(text, format->mask, sizeof format->mask);
    }
}

static bool
takes(const struct format *format, const char *path, const unsigned char *head,
      size_t len)
{
    const char *name = strrchr(path, '/');
    const char *dot = name ? strrchr(name, '.') : NULL;
    if (!format->enabled)
        return false;
    if (format->extension[0] != '\0')
        return dot && strcmp(dot, format->extension) == 0;
    if (format->len == 0 || format->offset + format->len > len)
        return false;
    for (size_t i = 0; i < format->len; i++)
        if ((head[format->offset + i] ^ format->magic[i]) & format->mask[i])
            return false;
    return true;
}

bool
program_is_registered(const char *formats, const char *path)
{
    unsigned char head[HEAD];
    DIR *folder = opendir(formats);
    char why[PROGRAM_WHY] = "";
    int fd = file_fault(path, why) ? -1 : open(path, READING);
    ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
    bool found = false;
    const struct dirent *entry;
    while (n >= 0 && folder && !found && (entry = readdir(folder))) {
        struct format format;
        char name[PATH_MAX];
        snprintf(name, sizeof name, "%s/%s", formats, entry->d_name);
        FILE *file = fopen(name, "re");
        if (!file)
            continue;
        read_format(file, &format);
        fclose(file);
        found = takes(&format, path, head, (size_t)n);
    }
    if (fd >= 0)
        close(fd);
    if (folder)
        closedir(folder);
    return found;
}
