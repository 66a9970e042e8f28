//! Pages that show a graph, in a browser: what is seen, what a click opens, what a search finds. By a script that stands in a
//! copy of the page, as only the page's own may. Chromium is taken where it is installed.

#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;
#[path = "common/required.rs"]
mod required;

use std::path::Path;
use std::process::Command;

use command::Folder;
use serde_json::Value;
use thalweg::draw::draw;
use thalweg::graph::draw::html;
use thalweg::prelude::*;

/// What `script` gives, run in the page behind its own scripts; nothing where there is no browser.
fn in_browser(page: &str, name: &str, script: &str) -> Option<Value> {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let found = browsers.iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = found else {
        required::skip(name, "chromium");
        return None;
    };
    let nonce = page.split_once("nonce-").and_then(|(_, rest)| rest.split_once('\'')).expect("a nonce").0;
    let probe = format!(
        "<script nonce=\"{nonce}\">const told = () => {{ {script} }};\n\
         const tell = () => {{ try {{ return told(); }} catch (error) {{ return {{ error: error.stack }}; }} }};\n\
         document.documentElement.dataset.told = JSON.stringify(tell());</script></body>"
    );
    let folder = Folder::new(&format!("drawing-{name}"));
    let path = folder.at("page.html");
    std::fs::write(&path, page.replace("</body>", &probe)).expect("it is written");
    let profile = folder.at("profile");
    let out = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--virtual-time-budget=20000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", path.display()))
        .output()
        .expect("it starts");
    let dom = String::from_utf8_lossy(&out.stdout).into_owned();
    let told = dom.split_once("data-told=\"").and_then(|(_, rest)| rest.split_once('"'));
    let (told, _) = told.unwrap_or_else(|| panic!("the script failed\n{}", String::from_utf8_lossy(&out.stderr)));
    let told = told.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert!(told.get("error").is_none(), "{told}");
    Some(told)
}

/// Four alike blocks and what is before and behind them; a name that would end a script, and one that is markup.
fn blocks() -> thalweg::graph::Graph {
    let g = Graph::new("</script><script>document.title='x'</script>").seed(1);
    let batch = g.dim("batch", 1..=64);
    let x = g.input("x", F32, shape![batch, 8]);
    let label = g.input("label", I32, shape![batch]);
    let mut h = x;
    for i in 0..4 {
        h = g.scope(&format!("h{i}"), || g.scope("fc", || Linear::new(8).call(h)).relu() + h);
    }
    let logits = g.scope("head", || Linear::new(5).call(h)).named("<b onclick=x>&\"logits\"</b>");
    let loss = cross_entropy(logits, label).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).momentum(0.9).minimize(loss));
    g.finish().expect("no mistakes")
}

/// What the scripts below share.
const HELP: &str = "
    const items = () => [...document.querySelectorAll('.item')];
    const ids = () => items().map((e) => e.dataset.id);
    const at = (id) => items().find((e) => e.dataset.id === id);
    const click = (id) => {
        if (!at(id)) throw new Error(`no ${id} among ${ids()}`);
        const target = at(id).querySelector('rect:not(.behind)');
        target.dispatchEvent(new PointerEvent('pointerdown', { bubbles: true }));
        target.dispatchEvent(new PointerEvent('pointerup', { bubbles: true }));
    };
    // Of boxes that none of them holds the other, none may lie on another.
    const overlaps = () => {
        const boxes = items().map((e) => [e.dataset.id, e.querySelector('rect:not(.behind)').getBBox()]);
        const inside = (a, b) => a.x >= b.x - 1 && a.y >= b.y - 1 && a.x + a.width <= b.x + b.width + 1 && a.y + a.height <= b.y + b.height + 1;
        const apart = (a, b) => a.x + a.width <= b.x + 1 || b.x + b.width <= a.x + 1 || a.y + a.height <= b.y + 1 || b.y + b.height <= a.y + 1;
        const bad = [];
        boxes.forEach(([i, a], k) => boxes.slice(k + 1).forEach(([j, b]) => {
            if (!apart(a, b) && !inside(a, b) && !inside(b, a)) bad.push([i, j]);
        }));
        return bad;
    };
    // Edges end at what is seen.
    const loose = () => [...document.querySelectorAll('.edge')].filter((e) => !at(e.dataset.from) || !at(e.dataset.to)).length;
";

#[test]
fn a_page_is_looked_into() {
    let page = html(&blocks(), None);
    let script = format!(
        "{HELP}
        const told = {{ ready: document.documentElement.dataset.ready, first: ids(), overlaps: [overlaps()], loose: [loose()] }};
        const look = () => {{ told.overlaps.push(overlaps()); told.loose.push(loose()); }};
        click('forward/h0…h3'); told.layers = ids(); look();
        click('forward/h2'); click('forward/h2/fc'); told.inside = ids().filter((id) => !told.layers.includes(id)); look();
        told.parameters = at('forward/h2').textContent;
        click('forward/h2'); told.closed = ids().join() === told.layers.join();
        const search = document.getElementById('search');
        search.value = 'cross_ent'; search.dispatchEvent(new Event('input'));
        told.found = [...document.querySelectorAll('#found a')].map((a) => a.textContent);
        search.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Enter' }}));
        told.details = document.getElementById('details').textContent; look();
        show(tree.byId.get('n29')); told.named = document.getElementById('details').textContent;
        told.touched = document.querySelectorAll('.edge.touched').length;
        document.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Escape' }}));
        told.hidden = document.getElementById('details').hidden;
        document.getElementById('open').click(); told.all = ids().length; look();
        document.getElementById('close').click(); told.none = ids().length; look();
        told.title = document.title; told.markup = document.querySelectorAll('b').length;
        return told;"
    );
    let Some(told) = in_browser(&page, "a_page_is_looked_into", &script) else { return };
    let list = |key: &str| -> Vec<String> {
        told[key].as_array().expect("a list").iter().map(|v| v.as_str().expect("text").into()).collect()
    };
    assert_eq!(told["ready"], "yes");
    let has = |key: &str, id: &str| list(key).iter().any(|known| known == id);
    // Alike layers are one box until it is opened; lanes stand side by side. The first layer's input needs no gradient.
    assert!(has("first", "forward/h0…h3") && !has("first", "forward/h0"), "{told}");
    assert!(has("first", "backward/h1…h3") && has("first", "update/h0…h3"), "{told}");
    assert!((0..4).all(|i| has("layers", &format!("forward/h{i}"))), "{told}");
    // Two parameters, matmul, add; relu and the second add.
    assert_eq!(list("inside").iter().filter(|id| id.starts_with('n')).count(), 6, "{told}");
    assert!(told["parameters"].as_str().expect("text").starts_with("h2"), "{told}");
    assert_eq!(told["closed"], true);
    assert!(list("found").iter().any(|text| text == "cross_entropy"), "{told}");
    let details = told["details"].as_str().expect("text");
    for says in ["f32[batch]", "drawing.rs", "train", "read bymean"] {
        assert!(details.contains(says), "{says}: {details}");
    }
    assert!(told["named"].as_str().expect("text").contains("<b onclick=x>&\"logits\"</b>"), "{told}");
    assert!(told["touched"].as_u64() >= Some(2) && told["hidden"] == true, "{told}");
    assert!(told["all"].as_u64() > told["none"].as_u64(), "{told}");
    let clean = |key: &str, none: &Value| told[key].as_array().expect("a list").iter().all(|v| v == none);
    assert!(clean("overlaps", &Value::Array(vec![])) && clean("loose", &0.into()), "{told}");
    // What names say is text.
    assert_eq!(
        (told["title"].as_str(), told["markup"].as_u64()),
        (Some("</script><script>document.title='x'</script>"), Some(0))
    );
}

/// The kit's language model: 12 million parameters, two thousand ops.
#[test]
fn a_deep_network_opens_at_once() {
    let case = thalweg::kit::Case::open("gpt_train", &Cluster::local(), None).expect("it compiles");
    let page = html(case.expect("there is such a case").model().graph(), None);
    let script = format!(
        "{HELP}
        const took = (what) => {{ const begin = performance.now(); what(); return performance.now() - begin; }};
        const first = took(draw);
        const all = took(() => document.getElementById('open').click());
        return {{ first, all, boxes: items().length, loose: loose() }};"
    );
    let Some(told) = in_browser(&page, "a_deep_network_opens_at_once", &script) else { return };
    println!("{} KB; {told}", page.len() / 1000);
    let milliseconds = |key: &str| told[key].as_f64().expect("a number");
    assert!(told["boxes"].as_u64() > Some(1500) && told["loose"] == 0, "{told}");
    assert!(milliseconds("first") < 1e3 && milliseconds("all") < 2e4, "{told}");
}

#[test]
fn a_picture_is_drawn_as_its_file_is_called() {
    let folder = Folder::new("drawn");
    let graph = blocks();
    for (name, begins) in [("a.html", "<!doctype html>"), ("a.dot", "digraph {"), ("a.mmd", "---\ntitle")] {
        let path = folder.at(name);
        draw(&graph, Some("train"), &path).expect("it is drawn");
        assert!(std::fs::read_to_string(&path).expect("it is there").starts_with(begins), "{name}");
    }
    let refused = |path: &Path| draw(&graph, None, path).expect_err("it is refused").to_string();
    assert!(refused(&folder.at("a.png")).contains("a.png: call it .html"));
    assert!(refused(&folder.at("no/such/place.html")).contains("cannot write"));
    // Nothing is asked of a network, and only scripts of the page run.
    let page = html(&graph, None);
    assert!(
        page.contains("default-src 'none'") && !page.contains("src=") && !page.contains("href="),
        "a page is one file"
    );
}
