use muster_worker_agent::executor::*; use muster_protocol::ProcId; use std::sync::mpsc; use muster_sys::clock::monotonic_ns;
fn main(){ let (s,r)=mpsc::channel(); let e=LocalExecutor::start(Box::new(move |x| drop(s.send(x)))).unwrap();
 let env: Vec<_> = std::env::vars_os().collect();
 let mk=|i:u32| Order::Spawn(Box::new(RankOrder{proc:ProcId(i),argv:vec!["true".into()],env:env.clone(),cwd:Some("/".into()),stdin:StdinSource::Null,pmi:true,cpus:None,limits:vec![],umask:None}));
 let mut v=vec![]; let mut w=vec![];
 for i in 0..2000 { let t=monotonic_ns(); e.order(mk(i)).unwrap(); let x=r.recv().unwrap(); v.push(monotonic_ns()-t); let y=r.recv().unwrap(); w.push(monotonic_ns()-t); drop((x,y)); }
 v.sort(); w.sort(); println!("order->spawned median {} us p99 {} us; ->exited {} us", v[1000]/1000, v[1980]/1000, w[1000]/1000);
 let t=monotonic_ns(); for i in 0..256 { e.order(mk(i)).unwrap(); } let mut n=0; let mut sp=0; let mut keep=vec![]; while n<256 { match r.recv().unwrap() { Report::Exited{..}=>n+=1, x=>{sp+=1; if sp==256 {println!("256 spawned after {} ms", (monotonic_ns()-t)/1000000);} keep.push(x)} } }
 println!("256 exited after {} ms", (monotonic_ns()-t)/1000000);
 let t=monotonic_ns(); e.order(Order::Sweep).unwrap(); r.recv().unwrap(); println!("empty sweep {} us", (monotonic_ns()-t)/1000);
 println!("rss {} KiB", muster_sys::proc::rss_kib().unwrap());
}
