// Browsers start no worker from the disk. Where this page is a file, the worker of its search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe")
    #waiting = []
    #ready = false

    constructor(url) {
      super()
      this.onmessage = this.onerror = this.onmessageerror = null
      this.#frame.hidden = true
      document.body.append(this.#frame)
      const inside = this.#frame.contentWindow
      inside.postMessage = data => this.#later(data, event => {
        this.onmessage?.(event)
        this.dispatchEvent(event)
      })
      const script = inside.document.createElement("script")
      script.src = new URL(url, location.href).href
      script.onload = () => {
        this.#ready = true
        this.#waiting.splice(0).forEach(data => this.postMessage(data))
      }
      script.onerror = () => this.onerror?.(new ErrorEvent("error", { cancelable: true }))
      inside.document.body.append(script)
    }

    postMessage(data) {
      if (!this.#ready) this.#waiting.push(data)
      else this.#later(data, event => this.#frame.contentWindow?.dispatchEvent(event))
    }

    terminate() {
      this.#frame.remove()
    }

    // As between threads: the other side gets a copy, and not before this one is done.
    #later(data, deliver) {
      const copy = structuredClone(data)
      setTimeout(() => deliver(new MessageEvent("message", { data: copy })))
    }
  }
}
